"""Reads gin files and overrides, and constructs the `Experiment` that they describe."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import gin
from data import gfile
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.gin_config import gin_tables, validation
from engine.storage.file_errors import reraise_read_errors

ROOT = str(Path(__file__).resolve().parents[2])
"""The checkout, in which gin/base.gin lies."""


def load_experiment(*, gin_files: Sequence[str], gin_params: Sequence[str] = ()) -> tuple[Experiment, str]:
    """Reads gin files, then overrides, and constructs the experiment.

    Args:
      gin_files: paths, relative to the working directory or to the checkout; "~" is the home directory.
        Python can import from their directories, so a task may lie in a module beside its gin file (but not
        in an object store).
      gin_params: bindings such as "TOTAL_EXAMPLES = 400", one each.

    Returns:
      The experiment, and the configuration that it uses as gin text, every default included.

    Raises:
      ConfigurationError: a file is missing, a name unknown, a type wrong, or a binding unused.
    """
    gin_files = [os.path.expanduser(path) for path in gin_files]
    for path in gin_files:
        _make_importable(path)
    _clear()
    for path in gin_files:
        with _reraise_parse_errors(path):
            gin.parse_config_file(path)
    for param in gin_params:
        with _reraise_parse_errors(f"--gin_param={param!r}"):
            gin.parse_config(param)
    return _construct(gin_params)


def load_experiment_text(text: str, *, where: str) -> Experiment:
    """Constructs the experiment from the text of a run's config.gin.

    Args:
      text: as `load_experiment` returned it.
      where: what the text is, for error messages.

    Raises:
      ConfigurationError: as `load_experiment`.
    """
    _clear()
    with _reraise_parse_errors(where):
        gin.parse_config(text)
    return _construct(())[0]


def load_another_text(text: str, *, where: str) -> Experiment:
    """As `load_experiment_text`, but keeps the configuration that is loaded for what asks for it later."""
    kept = gin.config_str()
    try:
        return load_experiment_text(text, where=where)
    finally:
        _clear()
        gin.parse_config(kept)


def _clear() -> None:
    gin.clear_config()
    gin_tables.search_in(ROOT)


def _make_importable(path: str) -> None:
    """Checks that a gin file is there, and lets Python import from its directory."""
    with reraise_read_errors(f"--gin_file={path}"):
        found = any(gfile.is_file(os.path.join(root, path)) for root in ("", ROOT))
    if not found:
        raise ConfigurationError(
            f"--gin_file={path}: no such file here or in {ROOT}; those that come with the project are in gin/"
        )
    directory = os.path.dirname(os.path.abspath(path))
    if not gfile.is_url(path) and directory not in sys.path:
        sys.path.append(directory)


@contextlib.contextmanager
def _reraise_parse_errors(where: str) -> Iterator[None]:
    """Turns what gin raises for text that it cannot use into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        reason = str(error).split("\n")[0]
        raise ConfigurationError(
            f"{where}: {reason}; put its folder on PYTHONPATH or the module beside the gin file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{where}: is not UTF-8 text; save it as UTF-8") from error
    except (ValueError, SyntaxError, OSError, AttributeError, NameError) as error:
        reason = " ".join(str(error).split("\n  In ")[0].split())
        if "No configurable matching" in reason or "doesn't have a parameter" in reason:
            reason += "; correct the name, or import its module at the top of the gin file"
        elif isinstance(error, SyntaxError) or "malformed node" in reason:
            reason = f"cannot be read ({reason[:80]}); write NAME = value, and text in quotes: 'mine'"
        raise ConfigurationError(f"{where}: {reason}") from error


def _construct(gin_params: Sequence[str]) -> tuple[Experiment, str]:
    validation.check_types()
    try:
        experiment = gin.get_configurable(Experiment)()
    except ValueError as error:  # ConfigurationError and DataError are ValueErrors
        raise ConfigurationError(str(error).split("\n")[0]) from error
    except TypeError as error:
        if not _raised_by_gin(error) or "missing" not in str(error):
            raise  # a mistake in the code, not in the configuration
        reason = str(error).split("\n")[0].replace("__init__()", "")
        raise ConfigurationError(
            f"the configuration is incomplete ({' '.join(reason.split())}); bind what is missing in a gin "
            "file, as gin/pix2pix.gin does"
        ) from error
    validation.check_macros()
    for param in gin_params:
        validation.check_used(param)
    return experiment, gin.operative_config_str()


def _raised_by_gin(error: TypeError) -> bool:
    """Whether gin's own call of a constructor failed, rather than code in the constructor."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return innermost.f_code.co_filename == gin.config.__file__
