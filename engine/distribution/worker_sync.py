"""Values that workers exchange between two calls of the loop, and the error when a worker is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from engine.distribution.devices import Devices
from engine.distribution.strategies import worker_count
from engine.errors import WorkerLostError


class WorkerSync:
    """Makes values that differ between workers equal on all, so that all take the same steps.

    Every method is a collective: all workers must call the same methods in the same order. With one worker
    nothing is exchanged.

    Args:
      devices: of the run.
    """

    def __init__(self, devices: Devices):
        self._devices = devices

    def all_reduce(self, *, stop: bool, sec_per_step: float) -> tuple[bool, float]:
        """One all-reduce of two numbers.

        Args:
          stop: whether this worker has to stop.
          sec_per_step: seconds per step as measured here.

        Returns:
          Whether any worker has to stop, and the mean of the seconds; the same bits on every worker.
        """
        if not self._devices.is_multi_worker:
            return stop, sec_per_step
        stops, sec = self._mean(tf.constant([float(stop), sec_per_step], tf.float64)).numpy()
        return bool(stops > 0), float(sec)

    def minimum(self, number: int) -> int:
        """The smallest of the workers' numbers."""
        if not self._devices.is_multi_worker:
            return number
        return int(self._minimum(tf.constant([number])))

    def barrier(self) -> None:
        """Returns when all workers have called it."""
        self.minimum(0)

    @tf.function(autograph=False)
    def _mean(self, numbers: tf.Tensor) -> tf.Tensor:
        strategy = self._devices.strategy

        def of_replica(numbers: tf.Tensor) -> tf.Tensor:
            # The multi-worker collectives take no tensor without a device, such as an argument: identity
            # places it on the replica's.
            own = tf.identity(numbers)
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

        total = strategy.experimental_local_results(strategy.run(of_replica, (numbers,)))[0]
        return total / self._devices.replicas

    @tf.function(autograph=False)  # TensorFlow warns of eager collectives
    def _minimum(self, number: tf.Tensor) -> tf.Tensor:
        strategy = self._devices.strategy
        own = strategy.run(tf.identity, (number,))
        return tf.reduce_min(strategy.gather(own, axis=0))


@contextlib.contextmanager
def reraise_worker_loss() -> Iterator[None]:
    """Raises `WorkerLostError` where TensorFlow fails because another worker has ended or hangs.

    TensorFlow notices a worker that has ended by its closed connections, and one that hangs by its missing
    heartbeat, after 10 s (TensorFlow's default).
    """
    try:
        yield
    except tf.errors.OpError as error:
        is_connection_error = isinstance(
            error, (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError)
        )
        # A collective that fails on another worker is aborted here with the other worker's error code.
        is_lost = is_connection_error or "Collective ops is aborted" in str(error)
        # After mismatched collectives all workers are alive, and a restart would fail again.
        if worker_count() < 2 or not is_lost or "Shape mismatch" in str(error):
            raise
        raise WorkerLostError() from error
