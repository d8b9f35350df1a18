"""What differs between two configurations of one run, as its config.gin keeps them.

A config.gin has every parameter that the run used, defaults included. It lacks parameters that a newer
version has added; the new configuration lacks parameters that it no longer uses. A missing parameter counts
as its default.

This gives the rule for a new parameter: its default must behave as the code did before. gin/base.gin may set
another value for new runs; continuing an old run then needs --allow_config_change.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeGuard

from engine.durations import examples_of

_TOTAL = "engine.experiment.Experiment.total_examples"
_BEST = "engine.experiment.Experiment.best_metric"
_EXTRACTOR = "engine.experiment.Experiment.feature_extractor"


class _Setting(NamedTuple):
    """One parameter as a gin text binds it.

    Attributes:
      label: its name in the text, scope included.
      module: where its class or function is defined; empty if the text does not import it.
      path: its class or function, and its own name, in there: "Supply.cache".
      value: as gin text, without macros.
    """

    label: str
    module: str
    path: str
    value: str

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.path}"

    def parameter(self) -> inspect.Parameter | None:
        """The parameter in today's code, if it (still) exists."""
        *attributes, name = self.path.split(".")
        try:
            target: Any = importlib.import_module(self.module)
            for attribute in attributes:
                target = getattr(target, attribute)
            return inspect.signature(target).parameters[name]
        except (ImportError, ValueError, AttributeError, KeyError, TypeError):
            return None


def differences(
    old: str,
    new: str,
    *,
    free_to_change: Collection[str],
    examples_per_epoch: int | None = None,
) -> list[str]:
    """Compares two configurations, given as the text of a config.gin.

    Args:
      old: that of the run.
      new: what it is to be continued with.
      free_to_change: full names of parameters that may differ, such as "data.supply.Supply.cache".
      examples_per_epoch: training examples in one epoch, to compare lengths: "100ep" is "50%" of a run of
        "200ep". None compares them as they are written.

    Returns:
      The other parameters that differ, one line each.
    """
    left, right = _settings(old), _settings(new)
    totals = [_total(settings, examples_per_epoch) for settings in (left, right)]
    lines = []
    for key in left.keys() | right.keys():
        before, after = left.get(key), right.get(key)
        setting = before if before is not None else right[key]
        if setting.full_name in free_to_change:
            continue
        parameter = setting.parameter()
        values = [_value(each, parameter) for each in (before, after)]
        if values[0] != values[1] and parameter is not None and "Duration" in str(parameter.annotation):
            values = [
                _length(value, total, examples_per_epoch) for value, total in zip(values, totals, strict=True)
            ]
        if values[0] != values[1]:
            shown = [_show(each, parameter) for each in (before, after)]
            lines.append(f"{setting.label}: {' -> '.join(shown)}")
    return sorted(lines)


def read_settings(text: str) -> dict[str, str]:
    """The parameters that a config.gin sets, by their names in it, with macros replaced by their values."""
    return {setting.label: setting.value for setting in _settings(text).values()}


def total_examples(text: str, *, examples_per_epoch: int) -> int | None:
    """The length of the run that a config.gin describes, in examples; None if it does not say."""
    return _total(_settings(text), examples_per_epoch)


def best_metric(text: str) -> str | None:
    """The metric that the best checkpoint of a config.gin is chosen by; None if it is left to the default."""
    setting = _settings(text).get(f"/{_BEST}")
    return ast.literal_eval(setting.value) if setting else None


def feature_extractor(text: str) -> dict[str, str]:
    """The feature extractor of a config.gin and its settings, by name; empty if it is left to the default.

    KID and FID of two texts are comparable if this is the same.
    """
    settings = _settings(text)
    setting = settings.get(f"/{_EXTRACTOR}")
    if setting is None:
        return {}
    owner = setting.value.strip("@()")
    return {
        each.full_name: each.value
        for each in settings.values()
        if each is setting or each.label.startswith(f"{owner}.")
    }


def plain_settings(text: str, *, leave_out: Collection[str]) -> dict[str, bool | int | float | str]:
    """The parameters that a config.gin binds, flat, for tools that compare runs by them.

    Args:
      text: of a config.gin.
      leave_out: full names of parameters, such as "data.supply.Supply.cache".

    Returns:
      Name in the text, such as "pix2pix.Pix2Pix.gan_loss" -> value; what is no number and no text, such as a
      tuple or another class, is text.
    """
    plain: dict[str, bool | int | float | str] = {}
    for setting in _settings(text).values():
        if setting.full_name in leave_out:
            continue
        try:
            value = ast.literal_eval(setting.value)
        except (ValueError, SyntaxError):  # @name()
            value = setting.value
        plain[setting.label] = value if isinstance(value, bool | int | float | str) else str(value)
    return plain


def _total(settings: Mapping[str, _Setting], examples_per_epoch: int | None) -> int | None:
    setting = settings.get(f"/{_TOTAL}")
    length = _length(_value(setting, None), None, examples_per_epoch) if setting else None
    return length if isinstance(length, int) else None


def _length(value: object, total: int | None, examples_per_epoch: int | None) -> object:
    """A length of training, as `_value` returns it, in examples; unchanged if it cannot be converted."""
    try:
        duration = ast.literal_eval(str(value))
        if examples_per_epoch is None and isinstance(duration, str):
            return value
        return examples_of(
            duration, examples_per_epoch=examples_per_epoch or 0, name=_TOTAL, total_examples=total
        )
    except (ValueError, SyntaxError):  # a ConfigurationError is a ValueError
        return value


def _show(setting: _Setting | None, parameter: inspect.Parameter | None) -> str:
    if setting:
        return setting.value
    return f"not set, {parameter.default!r} by default" if _has_default(parameter) else "not set"


def _value(setting: _Setting | None, parameter: inspect.Parameter | None) -> object:
    """Something to compare: the value as it is meant, or the default if nothing is bound."""
    takes_float = parameter is not None and "float" in str(parameter.annotation)
    if setting is None:
        return _meant(parameter.default, takes_float) if _has_default(parameter) else None
    try:
        return _meant(ast.literal_eval(setting.value), takes_float)
    except (ValueError, SyntaxError):  # @name()
        return setting.value


def _has_default(parameter: inspect.Parameter | None) -> TypeGuard[inspect.Parameter]:
    return parameter is not None and parameter.default is not inspect.Parameter.empty


def _meant(value: Any, takes_float: bool) -> str:
    """A text that differs where two values differ to their parameter.

    A list is a tuple, and 1 is 1.0 to a parameter that takes floats; but False is not 0.
    """
    if isinstance(value, list | tuple):
        return f"({', '.join(_meant(item, takes_float) for item in value)})"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return repr(float(value) if is_whole and takes_float else value)


def _settings(text: str) -> dict[str, _Setting]:
    """The parameters that a gin text binds, by scope and full name."""
    values, modules = _parse(text)
    settings = {}
    for label, value in values.items():
        if "." not in label:
            continue  # a macro
        if value.startswith("%"):
            value = values.get(value.removeprefix("%"), value)
        *scopes, name = label.split("/")
        # gin makes what a macro refers to, such as OPTIMIZER = @task.Adam(), in a scope of the macro's name.
        scope = "/".join(each for each in scopes if each not in values)
        imported = max((each for each in modules if name.startswith(f"{each}.")), key=len, default="")
        setting = _Setting(
            label=f"{scope}/{name}" if scope else name,
            module=modules.get(imported, ""),
            path=name.removeprefix(f"{imported}."),
            value=value,
        )
        settings[f"{scope}/{setting.full_name}"] = setting
    return settings


def _parse(text: str) -> tuple[dict[str, str], Mapping[str, str]]:
    """Reads a gin text.

    Returns:
      The values of parameters and macros, by name; the modules, by the name that they are imported under.
    """
    values: dict[str, str] = {}
    modules: dict[str, str] = {}
    key = None
    for line in text.splitlines():
        words = line.split()
        if line[:1].isspace() and key:
            values[key] += " " + line.strip()  # the rest of a long value
        elif " = " in line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            values[key] = value.strip().removesuffix("\\").strip()
        else:
            key = None
            if words[:1] == ["import"]:
                modules[words[-1]] = words[1]
            elif words[:1] == ["from"]:
                modules[words[-1]] = f"{words[1]}.{words[3]}"
    return values, modules
