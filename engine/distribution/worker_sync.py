"""What several workers agree on between two calls of the loop, and what one does without the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from engine.distribution.strategies import worker_count
from engine.errors import WorkerLostError


class WorkerSync:
    """Makes numbers that each worker has for itself the same for all, so that all do the same next.

    Every worker must ask equally often. One all-reduce of two numbers; with one worker nothing is done.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self._several = worker_count() > 1 and isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def reach(self, *, stop: bool, sec_per_step: float) -> tuple[bool, float]:
        """Whether any worker was asked to stop, and the mean of their seconds, the same bits everywhere."""
        if not self._several:
            return stop, sec_per_step
        stops, sec = self._mean(tf.constant([float(stop), sec_per_step], tf.float64)).numpy()
        return bool(stops > 0), float(sec)

    @tf.function(autograph=False)
    def _mean(self, numbers):
        def of_replica(numbers):
            own = tf.identity(numbers)  # on the replica's device; the collectives take no tensor without
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

        total = self._strategy.experimental_local_results(self._strategy.run(of_replica, (numbers,)))[0]
        return total / self._strategy.num_replicas_in_sync


@contextlib.contextmanager
def reraise_worker_loss() -> Iterator[None]:
    """Raises `WorkerLostError` where TensorFlow fails inside because another worker has ended or hangs.

    TensorFlow notices an ended process by its closed connections, and one that does not answer by its
    heartbeat: after 10 s, its default.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # What broke off a collective elsewhere comes with the code that it had there.
        of_connections = isinstance(
            error, (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError)
        )
        lost = of_connections or "Collective ops is aborted" in str(error)
        # Workers that do not ask for the same collective are all there; starting again would not help.
        if worker_count() < 2 or not lost or "Shape mismatch" in str(error):
            raise
        raise WorkerLostError() from error
