"""A time limit for the process, such as that of a batch system: the run saves and stops before it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Hashable, Iterable, Iterator

import psutil

from engine.durations import seconds_of
from engine.errors import ConfigurationError

_NAME = "Experiment.max_wall_time"
_LARGEST_MARGIN_SEC = 30.0


class WallTime:
    """Decides when the run has to stop to end within the limit, from the time that its actions took before.

    Args:
      limit: such as "8h30m", from the start of the process; None for no limit.
      age_sec: seconds since the start of the process; None asks the operating system.

    Attributes:
      limit: as given.

    Raises:
      ConfigurationError: the limit is not a duration.
    """

    def __init__(self, limit: str | None, *, age_sec: float | None = None):
        self.limit = limit
        if age_sec is None:
            age_sec = time.time() - psutil.Process().create_time()
        self._started = time.monotonic() - age_sec
        self._limit_sec = None if limit is None else seconds_of(limit, name=_NAME)
        self._took_sec: dict[Hashable, float] = {}

    @contextlib.contextmanager
    def measure(self, action: Hashable) -> Iterator[None]:
        """Measures how long an action takes. The last measurement of each action counts."""
        began = time.monotonic()
        yield
        self._took_sec[action] = time.monotonic() - began

    def is_nearly_over(self, due: Iterable[Hashable], *, loop_sec: float, save_sec: float) -> bool:
        """Whether the next call of the loop, the actions after it and a save might exceed the limit.

        Args:
          due: the actions after the next call; one that was never measured counts 0 seconds.
          loop_sec: how long the next call of the compiled loop may take.
          save_sec: how long a save may take; counted twice, because the save before it may have to end first.
        """
        if self._limit_sec is None:
            return False
        margin = min(_LARGEST_MARGIN_SEC, 0.05 * self._limit_sec)  # to start the save and to end the process
        needed = loop_sec + sum(self._took_sec.get(action, 0.0) for action in due) + 2 * save_sec + margin
        return time.monotonic() - self._started + needed > self._limit_sec

    def check_start(self) -> None:
        """Refuses a limit that is over before the first step, since such a run would never do a step.

        Raises:
          ConfigurationError: the limit is over.
        """
        age_sec = time.monotonic() - self._started
        if self._limit_sec is not None and age_sec > self._limit_sec:
            raise ConfigurationError(
                f"{_NAME} = {self.limit!r}: over before the first step; raise it above {age_sec:.0f}s"
            )
