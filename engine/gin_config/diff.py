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
from typing import Any, NamedTuple

_NO_DEFAULT = inspect.Parameter.empty


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

    def default(self) -> Any:
        """The parameter's default, if it (still) exists and has one."""
        *attributes, parameter = self.path.split(".")
        try:
            target: Any = importlib.import_module(self.module)
            for attribute in attributes:
                target = getattr(target, attribute)
            return inspect.signature(target).parameters[parameter].default
        except (ImportError, ValueError, AttributeError, KeyError, TypeError):
            return _NO_DEFAULT


def differences(old: str, new: str, *, free_to_change: Collection[str]) -> list[str]:
    """Compares two configurations, given as the text of a config.gin.

    Args:
      old: that of the run.
      new: what it is to be continued with.
      free_to_change: full names of parameters that may differ, such as "data.supply.Supply.cache".

    Returns:
      The other parameters that differ, one line each.
    """
    left, right = _settings(old), _settings(new)
    lines = []
    for key in left.keys() | right.keys():
        before, after = left.get(key), right.get(key)
        known = [setting for setting in (before, after) if setting]
        if known[0].full_name in free_to_change:
            continue
        default = known[0].default() if len(known) == 1 else _NO_DEFAULT
        if len(known) == 1:
            is_same = _is_default(known[0].value, default)
        else:
            is_same = known[0].value == known[1].value
        if not is_same:
            lines.append(f"{known[0].label}: {_show(before, default)} -> {_show(after, default)}")
    return sorted(lines)


def _show(setting: _Setting | None, default: Any) -> str:
    if setting:
        return setting.value
    return "not set" if default is _NO_DEFAULT else f"not set, {default!r} by default"


def _is_default(value: str, default: Any) -> bool:
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # @name() is never a default
        return False
    # repr, as 0, 0.0 and False are equal, but not the same setting.
    return repr(_without_lists(literal)) == repr(_without_lists(default))


def _without_lists(value: Any) -> Any:
    """A list and a tuple are the same to a parameter."""
    return tuple(map(_without_lists, value)) if isinstance(value, list | tuple) else value


def _settings(text: str) -> dict[str, _Setting]:
    """The parameters that a gin text binds, by scope and full name."""
    values, modules = _parse(text)
    settings = {}
    for label, value in values.items():
        if "." not in label:
            continue  # a macro
        if value.startswith("%"):
            value = values.get(value.removeprefix("%"), value)
        scope, _, name = label.rpartition("/")
        imported = max((each for each in modules if name.startswith(f"{each}.")), key=len, default="")
        setting = _Setting(
            label=label,
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
