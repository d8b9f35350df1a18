"""Groups of variables, chosen by patterns over their names, that are frozen or have rates of their own."""

from __future__ import annotations

import dataclasses
import math

from engine.errors import ConfigurationError, check_at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Trainable variables whose names match a pattern.

    The name of a variable is that of its network, and its path in it: "generator/down1_conv/kernel". In a
    pattern, * stands for any characters, ? for one, [ab] for one of these.

    Attributes:
      pattern: which variables; or several patterns.
      frozen: they never change. Batch norms whose variables are all frozen compute with their moving
        statistics, in training too.
      learning_rate: in place of that of their optimizer, whose schedule and batch-size rule apply; None keeps
        that.
      weight_decay: in place of that of their optimizer; None keeps that.

    Raises:
      ConfigurationError: a setting is out of its range, or has no effect.
    """

    pattern: str | tuple[str, ...]
    frozen: bool = False
    learning_rate: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if not self.patterns or not all(self.patterns):
            raise ConfigurationError(
                f"ParameterGroup.pattern = {self.pattern!r}: names no variables; give one such as "
                "'generator/*'"
            )
        rates = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        given = {name: rate for name, rate in rates.items() if rate is not None}
        if bool(given) == self.frozen:
            raise ConfigurationError(
                f"ParameterGroup of {self.pattern!r}: needs either frozen = True, or a learning_rate, a "
                "weight_decay, or both; set one"
            )
        for name, rate in given.items():
            check_at_least(0, of="ParameterGroup", **{name: rate})
            if math.isinf(rate):
                raise ConfigurationError(f"ParameterGroup.{name} = {rate}: must be finite; lower it")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, one or several."""
        return (self.pattern,) if isinstance(self.pattern, str) else tuple(self.pattern)
