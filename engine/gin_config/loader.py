"""From gin files and overrides to an `Experiment`; the only module that knows gin.

gin alone accepts a misspelt macro, a value of the wrong type and a binding that nothing uses in
silence; here each is an error. gin 0.5.0, the last release, has no public way to ask what was bound
and what was used, so this module reads its two tables, `_CONFIG` and `_OPERATIVE_CONFIG`.
"""

from __future__ import annotations

import ast
import collections.abc
import difflib
import inspect
import os
import sys
import traceback
import types
import typing
from collections.abc import Collection, Sequence
from pathlib import Path

import tensorflow as tf

import gin
from data import gfile
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.storage.file_errors import reraise_read_errors
from gin import config as gin_config

ROOT = str(Path(__file__).resolve().parents[2])

PUBLIC_MACROS = (
    "DATASET DATA_DIR LOAD_SIZE CROP_SIZE DIRECTION TRAIN_FRACTION TOTAL_EXAMPLES SEED INITIALISE_FROM "
    "STRATEGY CPU_REPLICAS GPUS JIT_COMPILE DETERMINISM CHECK_REPLICAS_EVERY PRECISION "
    "NORM DROPOUT BATCH_SCHEDULE LARGEST_MICRO_BATCH LEARNING_RATE LEARNING_RATE_RULE STEPS_PER_LOOP "
    "LOG_EVERY SAVE_EVERY SAMPLE_EVERY EVALUATE_EVERY KEEP_CHECKPOINTS"
).split()
"""Macros of gin/base.gin; each may be set whether or not the task at hand uses it."""


def load_experiment(*, gin_files: Sequence[str], gin_params: Sequence[str] = ()) -> tuple[Experiment, str]:
    """Reads gin files, then overrides, and constructs the experiment.

    Args:
      gin_files: paths, relative to the working directory or to the checkout. Their directories are
        importable, so that a task may lie in a module beside its gin file (not if that is in a store).
      gin_params: bindings such as "TOTAL_EXAMPLES = 400", one each.

    Returns:
      The experiment, and the configuration that was really used as gin text, every default included.

    Raises:
      ConfigurationError: a file is missing, a name unknown, a type wrong, or a binding unused.
    """
    for path in gin_files:
        with reraise_read_errors(f"--gin_file={path}"):
            found = any(tf.io.gfile.exists(os.path.join(root, path)) for root in ("", ROOT))
        if not found:
            raise ConfigurationError(
                f"--gin_file={path}: no such file here or in {ROOT}; those that come with the project are "
                "in gin/"
            )
        directory = os.path.dirname(os.path.abspath(path))
        if not gfile.is_url(path) and directory not in sys.path:
            sys.path.append(directory)
    _clear()
    for path in gin_files:
        _guard(lambda path=path: gin.parse_config_file(path), where=path)
    for param in gin_params:
        _guard(lambda param=param: gin.parse_config(param), where=f"--gin_param={param!r}")
    return _construct(gin_params)


def load_experiment_text(text: str, *, where: str) -> Experiment:
    """Constructs the experiment from the text of a run's config.gin.

    Raises:
      ConfigurationError: as `load_experiment`.
    """
    _clear()
    _guard(lambda: gin.parse_config(text), where=where)
    return _construct(())[0]


def differences(old: str, new: str, *, free_to_change: Collection[str]) -> list[str]:
    """What differs between two configurations beside what is free to change, one line each.

    A setting that the old text lacks, though it has others of the same class, was added by a newer version of
    the code. It differs only where its value is not its default, which behaves as before.

    Args:
      old: the text of a run's config.gin.
      new: the text of the configuration that is to continue the run.
      free_to_change: full names of settings that may differ, such as `supply.Supply.cache`.
    """
    left, right = _resolved(old), _resolved(new)
    configured = {key.rpartition(".")[0] for key in left}
    return [
        f"{key}: {left.get(key, 'not set')} -> {right.get(key, 'not set')}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
        and key.rpartition("/")[2] not in free_to_change
        and not (key not in left and key.rpartition(".")[0] in configured and _is_default(key, right[key]))
    ]


def _is_default(key: str, value: str) -> bool:
    """Whether the text of a value is the default of the setting `module.Class.name`."""
    selector, _, name = key.rpartition(".")
    registered = gin_config._REGISTRY.get_match(selector.rpartition("/")[2])
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a reference to another class
        return False
    if registered is None:
        return False
    parameter = inspect.signature(registered.wrapped).parameters.get(name)
    return parameter is not None and type(parameter.default) is type(parsed) and parameter.default == parsed


def _clear() -> None:
    gin.clear_config()
    # A path is looked up as it is, then in the checkout, where the included gin/base.gin lies.
    if ROOT not in gin_config._LOCATION_PREFIXES:
        gin.add_config_file_search_path(ROOT)
        gin.config.register_file_reader(tf.io.gfile.GFile, tf.io.gfile.exists)


def _guard(read, *, where: str) -> None:
    """Turns what gin raises for bad text into one line."""
    try:
        read()
    except ModuleNotFoundError as error:
        reason = str(error).split("\n")[0]
        raise ConfigurationError(
            f"{where}: {reason}; put its folder on PYTHONPATH or the module beside the gin file"
        ) from error
    except (ValueError, SyntaxError, OSError, AttributeError, NameError) as error:
        reason = " ".join(str(error).split("\n  In ")[0].split())
        if "No configurable matching" in reason or "doesn't have a parameter" in reason:
            reason += "; correct the name, or import its module at the top of the gin file"
        elif isinstance(error, SyntaxError) or "malformed node" in reason:
            reason = f"cannot be read ({reason[:80]}); write NAME = value, and text in quotes: 'mine'"
        raise ConfigurationError(f"{where}: {reason}") from error


def _construct(gin_params: Sequence[str]) -> tuple[Experiment, str]:
    _check_types()
    try:
        experiment = gin.get_configurable(Experiment)()
    except ValueError as error:  # ConfigurationError and DataError are ValueErrors
        raise ConfigurationError(str(error).split("\n")[0]) from error
    except TypeError as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        by_gin = innermost.f_code.co_filename == gin_config.__file__
        if not by_gin or "missing" not in str(error):  # a mistake in the code, not in the configuration
            raise
        reason = str(error).split("\n")[0].replace("__init__()", "")
        raise ConfigurationError(
            f"the configuration is incomplete ({' '.join(reason.split())}); bind what is missing in a gin "
            "file, as gin/pix2pix.gin does"
        ) from error
    _check_macros()
    for param in gin_params:
        _check_used(param)
    return experiment, gin.operative_config_str()


def _macros() -> dict[str, object]:
    return {
        scope: params["value"]
        for (scope, selector), params in gin_config._CONFIG.items()
        if selector == "gin.macro"
    }


def _check_macros() -> None:
    used = {scope for scope, selector in gin_config._OPERATIVE_CONFIG if selector == "gin.macro"}
    for name in _macros():
        if name not in used and name not in PUBLIC_MACROS:
            close = difflib.get_close_matches(name, [*PUBLIC_MACROS, *used], n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known: {', '.join(PUBLIC_MACROS)}"
            raise ConfigurationError(f"{name}: no such macro; {remedy}")


def _check_used(param: str) -> None:
    key = param.partition("=")[0].strip()
    if "." not in key:
        return  # a macro, checked above
    parsed = gin_config.ParsedBindingKey.parse(key)
    # What a macro such as BATCH_SCHEDULE refers to is made in a scope of the macro's name.
    used = any(
        selector == parsed.complete_selector
        and parsed.arg_name in arguments
        and (not parsed.scope or f"{scope}/".startswith(f"{parsed.scope}/"))
        for (scope, selector), arguments in gin_config._OPERATIVE_CONFIG.items()
    )
    if not used:
        raise ConfigurationError(
            f"--gin_param={param!r}: nothing in this configuration uses {key}; remove it, or choose the gin "
            "file that does"
        )


def _check_types() -> None:
    """Compares bound values with the annotations of what they are bound to."""
    macros = _macros()
    for (_, selector), params in gin_config._CONFIG.items():
        if selector == "gin.macro":
            continue
        hints = _hints(gin_config._REGISTRY[selector].wrapped)
        for name, value in params.items():
            label = f"{selector}.{name}"
            if isinstance(value, gin_config.ConfigurableReference):
                macro = str(value).removeprefix("%")
                if str(value).startswith("%") and macro not in macros:
                    close = difflib.get_close_matches(macro, macros, n=1)
                    remedy = f"did you mean %{close[0]}?" if close else "define it in a gin file"
                    raise ConfigurationError(f"{label} = {value}: no such macro; {remedy}")
                if not str(value).startswith("%"):
                    continue  # made by another configurable, whose own bindings are checked
                label, value = macro, macros[macro]
            if name in hints and not _fits(value, hints[name]):
                raise ConfigurationError(
                    f"{label} = {value!r}: wrong type {type(value).__name__}; {selector}.{name} takes "
                    f"{_describe(hints[name])}"
                )


def _hints(configurable) -> dict[str, object]:
    target = configurable.__init__ if isinstance(configurable, type) else configurable
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError):  # annotations that exist for type checkers only
        return {}


def _fits(value: object, hint: object) -> bool:
    """Whether a plain value is of an annotated type; true for what is not plain."""
    if isinstance(value, gin_config.ConfigurableReference) or hint in (typing.Any, object):
        return True
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin in (tuple, list, collections.abc.Sequence):
        return isinstance(value, (tuple, list))
    if origin is collections.abc.Mapping:
        return isinstance(value, dict)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if hint in (int, float):
        accepted = (int, float) if hint is float else int
        return isinstance(value, accepted) and not isinstance(value, bool)
    # A class or a callable: no number, string or tuple is one.
    return not isinstance(value, (bool, int, float, str, tuple, list, dict)) and value is not None


def _describe(hint: object) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))


def _resolved(text: str) -> dict[str, str]:
    """Bindings of a gin text with macros replaced by their values."""
    bindings: dict[str, str] = {}
    key = None
    for line in text.splitlines():
        if line[:1].isspace() and key:
            bindings[key] += " " + line.strip()  # the rest of a long value
        elif " = " in line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            bindings[key] = value.strip().removesuffix("\\").strip()
        else:
            key = None
    return {
        key: bindings.get(value.removeprefix("%"), value) if value.startswith("%") else value
        for key, value in bindings.items()
        if "." in key
    }
