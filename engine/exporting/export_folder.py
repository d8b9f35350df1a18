"""The folder of an export: it appears complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator

import tensorflow as tf

from data import gfile
from engine.errors import ConfigurationError
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors

DESCRIPTION = "gantry.json"
"""The file that every export has, and that a store gets last."""

REMEDY = "choose another folder, or make room there or make it writable"


@contextlib.contextmanager
def new_export(output: str, *, overwrite: bool) -> Iterator[str]:
    """Makes a folder for an export, for the block to write in.

    The block writes into a folder beside it, which gets the name at its end. If the block fails, nothing
    changes.

    Args:
      output: of the export; parents are made.
      overwrite: whether an export of that name is replaced.

    Yields:
      The folder to write in.

    Raises:
      ConfigurationError: the folder exists, or cannot be made.
    """
    output = output.rstrip("/")
    exists = _check_free(output, overwrite=overwrite)
    if gfile.is_url(output):
        with tempfile.TemporaryDirectory() as folder:
            yield folder
            with reraise_write_errors(f"--output={output}", remedy=REMEDY):
                _copy(folder, output, replaces=exists)
        return
    parent, name = os.path.split(os.path.abspath(output))
    mark = uuid.uuid4().hex[:8]
    folder, replaced = (os.path.join(parent, f".{what}_{name}_{mark}") for what in ("incomplete", "replaced"))
    with contextlib.ExitStack() as made:
        with reraise_write_errors(f"--output={output}", remedy=REMEDY):
            made.enter_context(gfile.new_dir(parent))
            os.mkdir(folder)
        try:
            yield folder
            with reraise_write_errors(f"--output={output}", remedy=REMEDY):
                if exists:
                    os.rename(output, replaced)
                os.rename(folder, output)
        except BaseException:
            if exists and os.path.lexists(replaced):
                os.rename(replaced, output)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(replaced, ignore_errors=True)


def _check_free(output: str, *, overwrite: bool) -> bool:
    """Whether an export of that name exists, which may be replaced.

    Raises:
      ConfigurationError: something else is there, or it may not be replaced.
    """
    with reraise_read_errors(f"--output={output}"):
        if not gfile.exists(output):
            return False
        if not gfile.is_dir(output):
            raise ConfigurationError(f"--output={output}: is a file; choose another name")
        names = gfile.list_dir(output)
    if names and DESCRIPTION not in names:
        raise ConfigurationError(f"--output={output}: holds other files; choose another folder")
    if names and not overwrite:
        raise ConfigurationError(
            f"--output={output}: holds an export already; choose another folder, or add --overwrite"
        )
    return True


def _copy(folder: str, output: str, *, replaces: bool) -> None:
    """Copies a folder into a store, its description last: without it, there is no export."""
    if replaces:
        tf.io.gfile.rmtree(output)
    paths = sorted(
        os.path.relpath(os.path.join(directory, name), folder)
        for directory, _, names in os.walk(folder)
        for name in names
    )
    for path in sorted(paths, key=lambda path: path == DESCRIPTION):
        target = os.path.join(output, path)
        tf.io.gfile.makedirs(os.path.dirname(target))
        tf.io.gfile.copy(os.path.join(folder, path), target)
