"""Checkpoints written while training goes on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from engine.inner_loop.train_state import TrainState
from engine.storage import checkpoints


class AsyncCheckpointer:
    """Writes checkpoints in a thread, one at a time.

    Each holds the state of the instant it was asked for. Until it is written the host's memory holds
    that state a second time: for `unet_256` with its discriminator about 650 MB.

    Args:
      is_chief: whether this worker writes; all others only take part in reading the variables.
    """

    def __init__(self, *, is_chief: bool):
        self._is_chief = is_chief
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future | None = None
        self.write_sec = 0.0  # of the last write

    def save(self, train_state: TrainState, directory: str, *, keep: int) -> None:
        """Takes the state as it is and has it written; waits only for the write before this one.

        Raises:
          ConfigurationError: the write before this one failed.
        """
        self.wait()
        snapshot = checkpoints.take_snapshot(train_state)
        if self._is_chief:
            self._writing = self._thread.submit(self._write, snapshot, directory, keep)

    def check(self) -> None:
        """Raises what went wrong in a write that has ended, without waiting for one that has not."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits until everything is on the disk.

        Raises:
          ConfigurationError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Lets the last write end; for where another error is on its way already."""
        self._thread.shutdown(wait=True)

    def _write(self, snapshot: checkpoints.Snapshot, directory: str, keep: int) -> None:
        began = time.monotonic()
        checkpoints.write(snapshot, directory, keep=keep)
        self.write_sec = time.monotonic() - began
