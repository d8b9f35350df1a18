"""Checks that all replicas hold the same variables, bit for bit, as they should after every step.

Each replica computes a checksum of each of its copies, and the checksums are compared. A checksum is the sum,
modulo 2^64, of the variable's 32-bit words, each multiplied by an odd number that depends on its place.
Floating-point values count as integers of the same bits, so -0 differs from 0, and equal NaNs are equal. An
odd factor cannot turn a difference into 0, so one wrong element is always found; several wrong elements are
missed only if their differences cancel by chance.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from engine.distribution.devices import Devices
from engine.distribution.strategy_run import gather_rows
from engine.errors import ReplicaMismatchError

_MIX = 0x1E3779B97F4A7C15
"""An odd number with bits set all over: it spreads the numbers of places over 64 bits."""


class ReplicaConsistencyCheck:
    """Compares the replicas' copies of the variables of a run.

    It needs memory for a few copies of the largest variable.

    Args:
      devices: of the run.
      variables: by name, as `engine.inner_loop.train_state.TrainState.variables` returns them; made under
        the strategy.
    """

    def __init__(self, devices: Devices, variables: Mapping[str, tf.Variable]):
        self._devices = devices
        self._variables = dict(variables)

    def run(self, *, examples: int, saved_at: int | None) -> None:
        """Compares the replicas. All workers must call this.

        Args:
          examples: position of the run, for the message.
          saved_at: examples at the last checkpoint, for the message; None if there is none.

        Raises:
          ReplicaMismatchError: replicas differ; the message names the first variable and the replicas.
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
        """Checksums of all replicas, int64 [replicas, variables], on every worker."""
        return gather_rows(self._devices, self._devices.strategy.run(self._sums_of_replica))

    def _sums_of_replica(self) -> tf.Tensor:
        """Checksums of this replica, int64 [1, variables]; called in replica context."""
        sums: list[tf.Tensor] = []
        for variable in self._variables.values():
            with tf.control_dependencies(sums[-1:]):  # one after the other, to save memory
                sums.append(_sum_of_bits(variable.read_value()))
        return tf.stack(sums)[tf.newaxis]


def _sum_of_bits(values: tf.Tensor) -> tf.Tensor:
    """The checksum of a tensor, int64 scalar."""
    if values.dtype.is_floating and values.dtype.size == 8:
        values = tf.bitcast(values, tf.int64)
    if values.dtype in (tf.int64, tf.uint64):
        words = tf.bitcast(values, tf.int32)
    elif values.dtype.is_floating:
        words = tf.bitcast(values, tf.int32 if values.dtype.size == 4 else tf.int16)
    else:
        words = values
    # int64, because TensorFlow runs the 32-bit integer kernels on the CPU even if there is a GPU.
    words = tf.cast(tf.reshape(words, [-1]), tf.int64)
    places = tf.range(tf.size(words, tf.int64), dtype=tf.int64)
    # If the factor were linear in the place, neighbouring differences of (1, -2, 1) would cancel.
    mixed = _MIX * places
    mixed = _MIX * tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 31))
    return tf.reduce_sum(words * (2 * mixed + 1))


def _in_the_minority(sums: Sequence[int]) -> tuple[int, ...]:
    """The replicas that differ from the majority; all replicas if there is no majority."""
    value, count = collections.Counter(sums).most_common(1)[0]
    has_majority = 2 * count > len(sums)
    return tuple(n for n, own in enumerate(sums) if not has_majority or own != value)
