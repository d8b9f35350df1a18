"""Checks of a configuration that gin itself does not make: macros, types, and bindings that nothing uses."""

from __future__ import annotations

import collections.abc
import difflib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from engine.errors import ConfigurationError
from engine.gin_config import gin_tables
from engine.gin_config.gin_tables import Reference

PUBLIC_MACROS = (
    "DATASET DATA_DIR LOAD_SIZE CROP_SIZE DIRECTION TRAIN_FRACTION TOTAL_EXAMPLES SEED INITIALISE_FROM "
    "STRATEGY CPU_REPLICAS GPUS JIT_COMPILE RECOMPUTE DETERMINISM CHECK_REPLICAS_EVERY PRECISION "
    "NORM DROPOUT BATCH_SCHEDULE LARGEST_MICRO_BATCH LEARNING_RATE LEARNING_RATE_SCHEDULE "
    "OPTIMIZER LEARNING_RATE_RULE STEPS_PER_LOOP LOG_EVERY SAVE_EVERY SAMPLE_EVERY EVALUATE_EVERY "
    "KEEP_CHECKPOINTS"
).split()
"""Macros of gin/base.gin; each may be set whether or not the task at hand uses it."""


def check_types() -> None:
    """Compares bound values with the type annotations of their parameters.

    Raises:
      ConfigurationError: a value has the wrong type, or refers to a macro that is not defined.
    """
    macros = gin_tables.macros()
    for selector, target, values in gin_tables.bindings():
        hints = _hints(target)
        for name, value in values.items():
            label = f"{selector}.{name}"
            if isinstance(value, Reference):
                if not str(value).startswith("%"):
                    continue  # constructed by another configurable, whose own bindings are checked
                macro = str(value).removeprefix("%")
                if macro not in macros:
                    remedy = _remedy(macro, macros, prefix="%", otherwise="define it in a gin file")
                    raise ConfigurationError(f"{label} = {value}: no such macro; {remedy}")
                label, value = macro, macros[macro]
            if name in hints and not _fits(value, hints[name]):
                raise ConfigurationError(
                    f"{label} = {value!r}: wrong type {type(value).__name__}; {selector}.{name} takes "
                    f"{_describe(hints[name])}"
                )


def check_macros() -> None:
    """After construction: every macro that was read is used, or one that every task may set.

    Raises:
      ConfigurationError: a macro is neither.
    """
    known = [*PUBLIC_MACROS, *gin_tables.used_macros()]
    for name in gin_tables.macros():
        if name not in known:
            remedy = _remedy(name, known, otherwise=f"known: {', '.join(PUBLIC_MACROS)}")
            raise ConfigurationError(f"{name}: no such macro; {remedy}")


def check_used(param: str) -> None:
    """After construction: the parameter that a --gin_param binds is used.

    Raises:
      ConfigurationError: it is not.
    """
    key = param.partition("=")[0].strip()
    is_macro = "." not in key  # see `check_macros`
    if not is_macro and not gin_tables.is_used(key):
        raise ConfigurationError(
            f"--gin_param={param!r}: nothing in this configuration uses {key}; remove it, or choose the gin "
            "file that does"
        )


def _remedy(name: str, known: Iterable[str], *, prefix: str = "", otherwise: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else otherwise


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's, or of a constructor's, parameters."""
    is_class = isinstance(target, type)
    function = target.__init__ if is_class else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that exist for type checkers only
        return {}


def _fits(value: object, hint: Any) -> bool:
    """Whether a plain value has an annotated type; true for a value that is not plain."""
    if isinstance(value, Reference) or hint in (Any, object):
        return True
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin in (tuple, list, collections.abc.Sequence):
        return isinstance(value, tuple | list)
    if origin is collections.abc.Mapping:
        return isinstance(value, dict)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if hint in (int, float):
        accepted = (int, float) if hint is float else int
        return isinstance(value, accepted) and not isinstance(value, bool)
    # A class or a callable: no number, string or tuple is one.
    return not isinstance(value, bool | int | float | str | tuple | list | dict) and value is not None


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))
