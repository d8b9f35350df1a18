"""The order of training examples: a pure function of (seed, epoch).

An epoch reads the shards one after the other, in a permuted order. The sequence of their records is cut into
consecutive windows (the last one is shorter), and each window is shuffled in memory. So reading is
sequential, memory use is bounded by the window, and every example comes exactly once per epoch.

All of it is TensorFlow operations, in the graph or eager: a Python function inside an input pipeline can
deadlock with the interpreter when the program ends.
"""

import dataclasses
import functools

import tensorflow as tf

_SHARDS, _WINDOWS = 0, 1  # what a permutation is of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
    """A position in the order of examples.

    Attributes:
      epoch: number of the epoch, from 0.
      window: number of the window in that epoch, from 0.
      offset: examples already drawn from that window.
    """

    epoch: int
    window: int
    offset: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOrder:
    """Order of the examples of one split.

    Epochs and windows are numbered from 0, as ints or int64 tensors.

    Attributes:
      shard_lengths: records of each shard, each at least 1.
      window_examples: records shuffled together, at least 1.
      seed: from 0 to 2**63 - 1.
    """

    shard_lengths: tuple[int, ...]
    window_examples: int
    seed: int

    @functools.cached_property
    def examples(self) -> int:
        """Number of examples in an epoch."""
        return sum(self.shard_lengths)

    @property
    def windows(self) -> int:
        """Number of windows in an epoch."""
        return -(-self.examples // self.window_examples)

    def locate(self, position_examples: int) -> Position:
        """Returns the `Position` after this many examples since the start of the run."""
        epoch, in_epoch = divmod(position_examples, self.examples)
        window, offset = divmod(in_epoch, self.window_examples)
        return Position(epoch=epoch, window=window, offset=offset)

    def shard_permutation(self, epoch: int | tf.Tensor) -> tf.Tensor:
        """Shard numbers in the order in which `epoch` reads them: int64 [shards]."""
        return self._permutation(len(self.shard_lengths), epoch, _SHARDS, 0)

    def window_permutation(self, epoch: int | tf.Tensor, window: int | tf.Tensor) -> tf.Tensor:
        """How a window is shuffled: int64 [records] p; its k-th example is its record p[k]."""
        left = self.examples - window * self.window_examples
        records = tf.minimum(tf.cast(left, tf.int64), self.window_examples)
        return self._permutation(records, epoch, _WINDOWS, window)

    def window_records(self, epoch: int | tf.Tensor, window: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the records of a window, in the order in which they are drawn, without reading any.

        Returns:
          shards, indices: int64 [records], the shard of each record and its index in that shard.
        """
        drawn = window * self.window_examples + self.window_permutation(epoch, window)
        permuted = self.shard_permutation(epoch)
        lengths = tf.gather(tf.constant(self.shard_lengths, tf.int64), permuted)
        ends = tf.cumsum(lengths)
        found = tf.searchsorted(ends, drawn, side="right")
        return tf.gather(permuted, found), drawn - tf.gather(ends - lengths, found)

    def rest_of_epoch(self, epoch: int | tf.Tensor, window: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds what is left to read from the start of a window to the end of its epoch.

        Returns:
          shards: int64 [S], shard numbers in reading order; the window begins in the first one.
          skips: int64 [S], records to skip at the start of each shard; only the first is not 0.
        """
        start = tf.cast(window * self.window_examples, tf.int64)
        shards = self.shard_permutation(epoch)
        lengths = tf.gather(tf.constant(self.shard_lengths, tf.int64), shards)
        ends = tf.cumsum(lengths)
        first = tf.searchsorted(ends, start[None], side="right")[0]
        skips = tf.maximum(start - (ends - lengths), 0)
        return shards[first:], skips[first:]

    def _permutation(self, length: int | tf.Tensor, *identity: int | tf.Tensor) -> tf.Tensor:
        """A permutation of range(length), int64, that depends on the seed and `identity` only."""
        key = tf.constant([self.seed, 0], tf.int64)
        for number in identity:
            # fold_in draws in the dtype of its argument: an int would count as int32.
            key = tf.random.fold_in(key, tf.cast(number, tf.int64))
        return tf.random.experimental.stateless_shuffle(tf.range(length, dtype=tf.int64), key)
