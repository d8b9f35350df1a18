"""Which files of a run are packed, chosen so that the copy is one that training can continue from.

While a run is being trained, its files change, and checkpoints come and go. What is packed then is what a
kill at some moment would have left: a checkpoint first, then the best one, then the logs, which reach at
least as far. Training drops the rows after the checkpoint when it continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import IO

from absl import logging

from data import gfile
from engine.errors import ConfigurationError
from engine.storage import checkpoints
from engine.storage import manifest as checkpoint_manifest
from engine.storage.file_errors import reraise_read_errors
from engine.storage.run_directory import RunDirectory
from engine.storage.run_lock import living_owner

PARTS = ("all", "latest", "best")

_MLFLOW = "mlflow_run_id.txt"
_TEMPORARY = re.compile(r"\.writable-[0-9a-f]{32}|.+\.[0-9a-f]{32}\.tmp")
_ATTEMPTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file to pack.

    Attributes:
      name: its path in the archive.
      path: where it is.
      file: it is open already, since training may remove it; None if not.
    """

    name: str
    path: str
    file: IO[bytes] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a run that are packed.

    Attributes:
      examples: position of the newest checkpoint among them.
      owner: the process that trains the run at this moment; None if there is none.
      sources: the files.
      left_out: names in the run directory that are not of the run, or of this part of it.
    """

    examples: int
    owner: str | None
    sources: list[Source]
    left_out: list[str]


@contextlib.contextmanager
def choose_files(run: RunDirectory, *, part: str) -> Iterator[RunFiles]:
    """Chooses the files of a part of a run; those of its checkpoints stay open as long as the block runs.

    Args:
      run: the run.
      part: "all", "latest" (what training needs to continue) or "best" (what evaluation and translation need;
        training would continue from the best checkpoint).

    Raises:
      ConfigurationError: there is no run, no such part, or no such checkpoint; or training removes
        checkpoints faster than they can be read.
    """
    if part not in PARTS:
        raise ConfigurationError(f"part {part!r}: is not known; use one of {', '.join(PARTS)}")
    if run.read_config() is None:
        raise ConfigurationError(
            f"--workdir={run.path}: holds no run (no config.gin); name the run: --workdir=runs/NAME"
        )
    owner = living_owner(run.lock)
    with contextlib.ExitStack() as stack:
        examples, sources = _open_checkpoints(run, part, stack, in_training=owner is not None)
        files = [
            *(run.config, run.data, run.fingerprint, run.micro_batch, os.path.join(run.path, _MLFLOW)),
            *(run.train_log, run.eval_log, run.console_log),
        ]
        if part != "best" and owner is None:  # a run that ends while it is packed is not done at `examples`
            files.append(run.done)
        folders = [run.evaluations, run.samples, run.tensorboard] if part == "all" else []
        with reraise_read_errors(f"--workdir={run.path}"):
            paths = [path for path in files if gfile.exists(path)]
            paths += [path for folder in folders for path in files_in(folder)]
            there = gfile.list_dir(run.path)
        taken = {
            os.path.basename(path)
            for path in [*files, *folders, run.checkpoints, run.best, run.lock, run.done]
        }
        sources += [Source(name=name_in(run.path, path), path=path) for path in paths]
        yield RunFiles(
            examples=examples,
            owner=owner,
            sources=sources,
            left_out=[name for name in there if name not in taken and not _TEMPORARY.fullmatch(name)],
        )


def files_in(folder: str) -> list[str]:
    """The files in a folder and its sub-folders, without temporary ones; none if there is no folder.

    Raises:
      OSError: it cannot be read.
    """
    found: list[str] = []
    for name in gfile.list_dir(folder) if gfile.is_dir(folder) else []:
        path = os.path.join(folder, name)
        if gfile.is_dir(path):
            # A link to a folder may lead back here, and what is behind it is not the run's.
            found += [] if not gfile.is_url(path) and os.path.islink(path) else files_in(path)
        elif gfile.is_file(path) and not _TEMPORARY.fullmatch(name):
            found.append(path)
    return found


def name_in(root: str, path: str) -> str:
    """The name of a path in an archive: what comes after a folder, with slashes."""
    return path.removeprefix(root).replace(os.sep, "/").lstrip("/")


def _open_checkpoints(
    run: RunDirectory, part: str, stack: contextlib.ExitStack, *, in_training: bool
) -> tuple[int, list[Source]]:
    """The position and the open files of the newest checkpoint, the files of others, and of the best."""
    for attempt in range(_ATTEMPTS):
        try:
            with contextlib.ExitStack() as opened:
                examples, sources = _read_checkpoints(run, part, opened, in_training=in_training)
                stack.enter_context(opened.pop_all())
                return examples, sources
        except FileNotFoundError:
            continue
        except OSError as error:  # such as too many open files
            reason = f"{error.filename}: cannot be read ({gfile.reason_of(error)})"
            raise ConfigurationError(f"{reason}; check the path and its permissions") from error
        except ConfigurationError:  # a checkpoint that was removed while it was verified counts as damaged
            if not in_training or attempt == _ATTEMPTS - 1:
                raise
    raise ConfigurationError(
        f"--workdir={run.path}: its checkpoints are removed faster than they can be read; raise "
        "KEEP_CHECKPOINTS, or stop the training first"
    )


def _read_checkpoints(
    run: RunDirectory, part: str, opened: contextlib.ExitStack, *, in_training: bool
) -> tuple[int, list[Source]]:
    directory = run.best if part == "best" else run.checkpoints
    examples = checkpoints.newest_undamaged(directory)
    if examples is None:
        raise ConfigurationError(_no_checkpoint(directory, part))
    sources = _open(directory, examples, opened, root=run.path)
    if part == "best":
        # The best networks are the newest of the packed run, so that every program finds them.
        return examples, sources + _under(run.checkpoints, sources, root=run.path)
    # In this order: the best is then at least as new as the newest checkpoint knows.
    best = checkpoints.newest_undamaged(run.best)
    if best is None and in_training and gfile.is_dir(run.best) and gfile.list_dir(run.best):
        raise FileNotFoundError(run.best)  # a new one of the same position is just taking its place
    sources += [] if best is None else _open(run.best, best, opened, root=run.path)
    if part == "all" and not in_training:
        sources += _older(run, examples)
    return examples, sources


def _older(run: RunDirectory, newest: int) -> list[Source]:
    """The files of the intact checkpoints before the newest one."""
    sources = []
    for position in checkpoints.list_checkpoints(run.checkpoints):
        path = checkpoints.path_of(run.checkpoints, position)
        if position < newest and (damage := checkpoint_manifest.verify(path, examples=position)) is None:
            sources += [
                Source(name=name_in(run.path, file), path=file)
                for file in (os.path.join(path, name) for name in gfile.list_dir(path))
            ]
        elif position < newest:
            logging.warning("checkpoint %s is damaged (%s) and is not packed", path, damage)
    return sources


def _open(directory: str, position: int, opened: contextlib.ExitStack, *, root: str) -> list[Source]:
    path = checkpoints.path_of(directory, position)
    files = [os.path.join(path, name) for name in gfile.list_dir(path)]
    return [
        Source(name=name_in(root, file), path=file, file=opened.enter_context(gfile.open_binary(file)))
        for file in files
    ]


def _under(directory: str, sources: list[Source], *, root: str) -> list[Source]:
    """The same files under the name of another directory of the run."""
    name = name_in(root, directory)
    return [
        dataclasses.replace(source, name="/".join([name, *source.name.split("/")[1:]])) for source in sources
    ]


def _no_checkpoint(directory: str, part: str) -> str:
    if part == "best":
        return (
            f"{directory}: no best checkpoint, as the run has not been evaluated or names no metric; use "
            "--part=latest"
        )
    return f"{directory}: no checkpoint; train the run further"
