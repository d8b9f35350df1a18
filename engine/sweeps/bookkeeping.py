"""What the processes of one sweep tell each other: which run is taken, and which has failed.

The files lie in SWEEP/.sweep: NAME.lock names the process that runs the run NAME, and NAME.failed says why it
failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator

import tensorflow as tf

from data import gfile
from engine.storage import run_lock
from engine.storage.atomic_files import write_text
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run failed.

    Attributes:
      code: exit code of its process.
      message: the last line of its output to stderr.
      time_unix: when.
    """

    code: int
    message: str
    time_unix: float


class Bookkeeping:
    """The files of one sweep.

    Args:
      workdir: directory of the sweep; made if missing.

    Raises:
      ConfigurationError: it cannot be written.
    """

    def __init__(self, workdir: str):
        self._workdir = workdir
        self._directory = os.path.join(workdir, ".sweep")
        self._began_unix = time.time()
        with reraise_write_errors(f"--workdir={workdir}", remedy="choose a directory you may write to"):
            tf.io.gfile.makedirs(self._directory)

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Keeps other processes of the sweep from a run as long as the block runs.

        Raises:
          engine.storage.run_lock.RunInUseError: one has it.
        """
        with run_lock.hold(self._path(name, "lock"), what=f"run {name}"):
            yield

    def owner(self, name: str) -> str | None:
        """The process that has claimed a run; None if there is none."""
        return run_lock.living_owner(self._path(name, "lock"))

    def record_failure(self, name: str, *, code: int, message: str) -> Failure:
        """Records that a run has failed, for this process and those beside it."""
        failure = Failure(code=code, message=message, time_unix=time.time())
        write_text(self._path(name, "failed"), json.dumps(dataclasses.asdict(failure)) + "\n")
        return failure

    def failure(self, name: str) -> Failure | None:
        """The failure of a run since this process began; an earlier one does not count."""
        path = self._path(name, "failed")
        with reraise_read_errors(path):
            if not gfile.exists(path):
                return None
            with gfile.open_text(path) as file:
                text = file.read()
        try:
            failure = Failure(**json.loads(text))
        except (ValueError, TypeError):
            return None
        return failure if failure.time_unix >= self._began_unix else None

    def _path(self, name: str, end: str) -> str:
        return os.path.join(self._directory, f"{name}.{end}")
