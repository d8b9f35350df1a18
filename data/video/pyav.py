"""PyAV, an extra that reads and writes video in containers, such as .mp4."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

from data import gfile
from data.errors import DataError

CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Extensions of the files that PyAV reads and writes."""


def is_container_name(path: str) -> bool:
    """Whether a file name is that of a video in a container."""
    return os.path.splitext(path)[1].lower() in CONTAINERS


def import_pyav(path: str) -> Any:
    """Imports PyAV.

    Args:
      path: of the file that needs it.

    Raises:
      DataError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise DataError(
            f"{path}: needs PyAV; install the extra 'video' (pip install -e '.[video]'), or convert the "
            "video to .y4m with ffmpeg"
        ) from error


@contextlib.contextmanager
def open_container(av: Any, path: str) -> Iterator[Any]:
    """Opens a file for reading, also in a store.

    Raises:
      DataError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with reraise_read_errors(av, path):
            file = stack.enter_context(gfile.open_binary(path))
            container = stack.enter_context(av.open(file))
        yield container


@contextlib.contextmanager
def reraise_read_errors(av: Any, path: str, damage: str = "damaged video") -> Iterator[None]:
    """Raises errors of PyAV and the system as a DataError of one line.

    Args:
      av: PyAV.
      path: of the file.
      damage: what to say if the contents are wrong.
    """
    try:
        yield
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{path}: {damage} ({reason}); remove or replace it") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({gfile.reason_of(error)}); check it") from error
