"""Checkpoints written while training goes on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from engine.inner_loop.train_state import TrainState
from engine.storage import checkpoints


class AsyncCheckpointer:
    """Writes checkpoints in a thread, one at a time.

    Each checkpoint holds the state at the time of the call to `save`. Until it is written, the host's
    memory holds that state a second time: about 650 MB for `unet_256` with its discriminator.

    Args:
      is_chief: whether this worker writes; the others only take part in reading the variables.

    Attributes:
      write_sec: seconds that the last write took; 0 before the first.
    """

    def __init__(self, *, is_chief: bool):
        self._is_chief = is_chief
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.write_sec = 0.0

    def save(self, train_state: TrainState, directory: str, *, keep: int) -> None:
        """Takes a snapshot and starts to write it. Waits only for the previous write.

        Args:
          train_state: the state to save.
          directory: holds the checkpoints.
          keep: intact checkpoints that stay there, the new one included; at least 1.

        Raises:
          ConfigurationError: the previous write failed.
        """
        self.wait()
        snapshot = checkpoints.take_snapshot(train_state)
        if self._is_chief:
            self._writing = self._thread.submit(self._write, snapshot, directory, keep)

    def save_again(self, source: str, directory: str, *, examples: int, keep: int) -> None:
        """Starts to add a checkpoint to another directory, without writing its values again where it can.

        Args:
          source: the directory of the last `save`, which need not be complete yet.
          directory: gets the checkpoint.
          examples: its position.
          keep: intact checkpoints that stay there, the new one included; at least 1.

        Raises:
          ConfigurationError: the previous write failed.
        """
        self.wait()
        if self._is_chief:
            self._writing = self._thread.submit(
                checkpoints.write_again, source, directory, examples=examples, keep=keep
            )

    def check(self) -> None:
        """Raises the error of a write that has ended; does not wait for one that is in progress.

        Raises:
          ConfigurationError: the checkpoint could not be written.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the checkpoint is written.

        Raises:
          ConfigurationError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits for the last write without raising its error, which would hide the one being raised."""
        self._thread.shutdown(wait=True)

    def _write(self, snapshot: checkpoints.Snapshot, directory: str, keep: int) -> None:
        began = time.monotonic()
        checkpoints.write(snapshot, directory, keep=keep)
        self.write_sec = time.monotonic() - began
