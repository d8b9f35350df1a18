"""Errors of reading and writing files, raised as one line that names the path and says how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from data.gfile import reason_of
from engine.errors import ConfigurationError

_REMEDY = "make room there or make it writable, and start the same command again"


@contextlib.contextmanager
def reraise_write_errors(what: str, *, remedy: str = _REMEDY) -> Iterator[None]:
    """Raises a failure to write as a ConfigurationError.

    Args:
      what: the path, or the flag that set it, for the message.
      remedy: how to mend it.

    Raises:
      ConfigurationError: the disk is full, the directory is not writable, ...
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ConfigurationError(f"{what}: cannot be written ({reason_of(error)}); {remedy}") from error


@contextlib.contextmanager
def reraise_read_errors(what: str) -> Iterator[None]:
    """Raises a failure to read a file, or to find out whether it exists, as a ConfigurationError.

    Args:
      what: the path, or the flag that set it, for the message.

    Raises:
      ConfigurationError: permission is denied, there is no store of that name, ...
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ConfigurationError(
            f"{what}: cannot be read ({reason_of(error)}); check the path and its permissions"
        ) from error
