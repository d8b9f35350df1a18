"""Applies parameter groups to the networks of a run."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import keras

from engine.errors import ConfigurationError
from engine.inner_loop.optimizer_state import VariableRates
from engine.optimizers import Optimizer
from engine.parameter_groups import ParameterGroup


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariableGroups:
    """Which group each trainable variable is in.

    Attributes:
      groups: the groups; the variables of none are those of the optimizers.
      names: of the variables of each group, in its order.
      parameters: their number in each group.
      group_of: index of the group by name of the variable.
    """

    groups: tuple[ParameterGroup, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    parameters: tuple[int, ...] = ()
    group_of: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def freeze(self, networks: Mapping[str, keras.Model]) -> None:
        """Makes the variables of frozen groups constants of networks, or of their copies."""
        for network, model in networks.items():
            for variable in model.trainable_variables:
                group = self.group_of.get(variable_name(network, variable))
                if group is not None and self.groups[group].frozen:
                    variable.trainable = False
            for layer in _flattened(model.layers):
                is_norm = hasattr(layer, "moving_mean") and hasattr(layer, "moving_variance")
                if is_norm and layer.trainable and not layer.trainable_variables:
                    layer.trainable = False

    def rates(
        self, settings: Optimizer, networks: Mapping[str, keras.Model]
    ) -> dict[str, list[VariableRates]]:
        """The rates of the trainable variables of networks, after `freeze`, in their order.

        Args:
          settings: of the optimizer of these networks.
          networks: by name.

        Raises:
          ConfigurationError: a group has a learning rate, but the optimizer's is 0.
        """
        return {
            network: [
                self._rates(settings, variable_name(network, variable))
                for variable in model.trainable_variables
            ]
            for network, model in networks.items()
        }

    def _rates(self, settings: Optimizer, name: str) -> VariableRates:
        if name not in self.group_of:
            return VariableRates()
        group = self.groups[self.group_of[name]]
        factor = 1.0
        if group.learning_rate is not None:
            if not settings.learning_rate:
                raise ConfigurationError(
                    f"ParameterGroup.learning_rate = {group.learning_rate}: is relative to the optimizer's "
                    "in every step, which is 0; set that"
                )
            factor = group.learning_rate / settings.learning_rate
        return VariableRates(factor, group.weight_decay)

    def lines(self) -> list[str]:
        """The groups and their variables, for the console."""
        lines = []
        for group, names, parameters in zip(self.groups, self.names, self.parameters, strict=True):
            rates = {"learning rate": group.learning_rate, "weight decay": group.weight_decay}
            what = ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if rate is not None)
            lines.append(
                f"group {', '.join(group.patterns)}: {what or 'frozen'}; {len(names)} "
                f"variable{'' if len(names) == 1 else 's'}, {parameters:,} parameters"
            )
            lines += [f"  {name}" for name in names]
        return lines


def find_groups(groups: Sequence[ParameterGroup], networks: Mapping[str, keras.Model]) -> VariableGroups:
    """Finds the variables of each group.

    Args:
      groups: of the experiment.
      networks: in training, by name.

    Raises:
      ConfigurationError: a pattern matches nothing, or two groups match one variable.
    """
    sizes = {
        variable_name(network, variable): math.prod(variable.shape)
        for network, model in networks.items()
        for variable in model.trainable_variables
    }
    group_of: dict[str, int] = {}
    found = []
    for index, group in enumerate(groups):
        names = [name for name in sizes if any(fnmatch.fnmatchcase(name, each) for each in group.patterns)]
        for pattern in group.patterns:
            if not fnmatch.filter(sizes, pattern):
                raise ConfigurationError(
                    f"ParameterGroup.pattern = {pattern!r}: matches no trainable variable; the networks have "
                    f"{_some(sizes)}"
                )
        for name in names:
            if name in group_of:
                others = [groups[number].pattern for number in (group_of[name], index)]
                raise ConfigurationError(
                    f"ParameterGroup.pattern: {others[0]!r} and {others[1]!r} both match {name}; let each "
                    "variable match one"
                )
            group_of[name] = index
        found.append(tuple(names))
    return VariableGroups(
        groups=tuple(groups),
        names=tuple(found),
        parameters=tuple(sum(sizes[name] for name in names) for names in found),
        group_of=group_of,
    )


def variable_name(network: str, variable: keras.Variable) -> str:
    """The name of a variable: that of its network, and its path in it."""
    return f"{network}/{variable.path.removeprefix(f'{network}/')}"


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _flattened(layers: Iterable[keras.Layer]) -> Iterator[keras.Layer]:
    for layer in layers:
        yield layer
        yield from _flattened(getattr(layer, "layers", ()))
