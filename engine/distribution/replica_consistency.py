"""Whether the replicas hold the same variables, bit for bit, as they should after every step.

Each replica adds up the bits of each of its copies, and the sums are compared. Words of 32 bits (floating
point taken as integers, so -0 is not 0 and a NaN is what it is), each times an odd number that depends on
its place, are added modulo 2^64. An odd factor cannot make the difference of one word 0, so a single
wrong element is always found; several cancel by chance alone.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from engine.errors import ReplicaMismatchError

_MIX = 0x1E3779B97F4A7C15
"""Odd, with bits all over: spreads the numbers of places over 64 bits."""


class ReplicaConsistencyCheck:
    """Compares all copies of the variables of a run.

    Several workers must call it equally often. In memory it takes some
    times the size of the largest variable.

    Args:
      strategy: over whose replicas.
      variables: by name, as `engine.inner_loop.train_state.TrainState.variables` gives them; made under
      the strategy.
    """

    def __init__(self, strategy: tf.distribute.Strategy, variables: Mapping[str, tf.Variable]):
        self._strategy = strategy
        self._variables = dict(variables)

    def run(self, *, examples: int, saved_at: int | None) -> None:
        """Compares them.

        Args:
          examples: where the run stands, for the message.
          saved_at: examples at the last checkpoint; None if there is none.

        Raises:
          ReplicaMismatchError: names the first variable that differs, and the replicas concerned.
        """
        sums = self._sums().numpy()  # [R, variables]
        differing = np.flatnonzero((sums != sums[0]).any(axis=0))
        if len(differing):
            first = differing[0]
            raise ReplicaMismatchError(
                list(self._variables)[first],
                replicas=_in_the_minority(sums[:, first].tolist()),
                others=len(differing) - 1,
                examples=examples,
                saved_at=saved_at,
            )

    @tf.function(autograph=False)
    def _sums(self) -> tf.Tensor:
        """int64 [R, variables], the same on every worker."""
        own = self._strategy.run(self._sums_of_replica)
        if isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._strategy.gather(own, axis=0)
        return tf.concat(self._strategy.experimental_local_results(own), axis=0)

    def _sums_of_replica(self) -> tf.Tensor:
        """int64 [1, variables] (in replica context)."""
        sums = []
        for variable in self._variables.values():
            with tf.control_dependencies(sums[-1:]):  # one after the other, for the sake of memory
                sums.append(_sum_of_bits(variable.read_value()))
        return tf.stack(sums)[tf.newaxis]


def _sum_of_bits(values: tf.Tensor) -> tf.Tensor:
    """int64 scalar. TensorFlow's integer kernels for 32 bits run on the CPU also beside a GPU."""
    if values.dtype.is_floating and values.dtype.size == 8:
        values = tf.bitcast(values, tf.int64)
    if values.dtype in (tf.int64, tf.uint64):
        words = tf.bitcast(values, tf.int32)
    elif values.dtype.is_floating:
        words = tf.bitcast(values, tf.int32 if values.dtype.size == 4 else tf.int16)
    else:
        words = values
    words = tf.cast(tf.reshape(words, [-1]), tf.int64)
    places = tf.range(tf.size(words, tf.int64), dtype=tf.int64)
    # Not linear in the place, or differences of (1, -2, 1) in a row would cancel.
    mixed = _MIX * places
    mixed = _MIX * tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 31))
    return tf.reduce_sum(words * (2 * mixed + 1))


def _in_the_minority(sums: Sequence[int]) -> tuple[int, ...]:
    """The replicas that most others disagree with; all of them if there is no majority."""
    value, count = collections.Counter(sums).most_common(1)[0]
    has_majority = 2 * count > len(sums)
    return tuple(n for n, own in enumerate(sums) if not has_majority or own != value)
