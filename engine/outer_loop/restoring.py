"""Restoring a run's newest checkpoint, the same one on every worker."""

from __future__ import annotations

from engine.distribution.devices import Devices
from engine.distribution.worker_sync import WorkerSync
from engine.inner_loop.train_state import TrainState
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory


def restore_newest(
    train_state: TrainState, run: RunDirectory, *, devices: Devices, sync: WorkerSync
) -> int | None:
    """Restores the newest checkpoint that is undamaged on every worker. All workers must call this.

    Args:
      train_state: gets the values.
      run: holds the checkpoints.
      devices: of the run.
      sync: exchanges the positions.

    Returns:
      The checkpoint's position in examples; None if there is no checkpoint yet.

    Raises:
      ConfigurationError: all checkpoints are damaged, or the newest one does not fit the networks.
    """
    _clean_up(run, devices, sync)
    position = _newest_on_all_workers(run.checkpoints, sync)
    if position is not None:
        checkpoints.load(train_state, run.checkpoints, position)
    return position


def _clean_up(run: RunDirectory, devices: Devices, sync: WorkerSync) -> None:
    """Lets the chief remove the remains of an interrupted save before any worker lists checkpoints."""
    if devices.is_chief:
        checkpoints.clean_up(run.checkpoints)
        checkpoints.clean_up(run.best)
    sync.barrier()


def _newest_on_all_workers(directory: str, sync: WorkerSync) -> int | None:
    """The smallest of the workers' newest positions: a shared file system may show them different files."""
    newest = checkpoints.newest_undamaged(directory)
    position = sync.minimum(-1 if newest is None else newest)
    return None if position < 0 else position
