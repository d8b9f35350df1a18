"""The order of training examples: a pure function of (seed, epoch).

An epoch reads the shards in a permuted order, one after the other; the sequence of their records
is cut into consecutive windows, the last one shorter, and each window is shuffled in memory. So
reading is sequential, memory is bounded by windows, and every example comes exactly once an epoch.

All of it is TensorFlow operations, in the graph or eager: a Python function inside an input
pipeline can deadlock with the interpreter when the program ends.
"""

import dataclasses
import functools

import tensorflow as tf

_SHARDS, _WINDOWS = 0, 1  # what a permutation is of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a position lies: `offset` examples into window `window` of epoch `epoch`."""

    epoch: int
    window: int
    offset: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOrder:
    """Order of the examples of one split.

    Epochs and windows are numbered from 0, and are ints or int64 tensors.

    Attributes:
        shard_lengths: records of each shard, each at least 1.
        window_examples: records shuffled together, at least 1.
        seed: from 0 to 2**63 - 1.
    """

    shard_lengths: tuple[int, ...]
    window_examples: int
    seed: int

    @functools.cached_property
    def examples(self):
        """Examples in an epoch."""
        return sum(self.shard_lengths)

    def locate(self, position_examples):
        """Gives the `Place` of a position, an int counted in examples since the start of the run."""
        epoch, in_epoch = divmod(position_examples, self.examples)
        window, offset = divmod(in_epoch, self.window_examples)
        return Place(epoch=epoch, window=window, offset=offset)

    def shard_permutation(self, epoch):
        """Shard numbers in the order in which `epoch` reads them: int64 [shards]."""
        return self._permutation(len(self.shard_lengths), epoch, _SHARDS, 0)

    def window_permutation(self, epoch, window):
        """How a window is shuffled: int64 [records]; its k-th example is its record p[k]."""
        left = self.examples - window * self.window_examples
        records = tf.minimum(tf.cast(left, tf.int64), self.window_examples)
        return self._permutation(records, epoch, _WINDOWS, window)

    @property
    def windows(self):
        """Windows in an epoch."""
        return -(-self.examples // self.window_examples)

    def window_records(self, epoch, window):
        """The records of a window in the order in which they are drawn, without reading any.

        Returns:
            shards, indices: int64 [records], the shard of each and its number inside that shard.
        """
        drawn = window * self.window_examples + self.window_permutation(epoch, window)
        permuted = self.shard_permutation(epoch)
        lengths = tf.gather(tf.constant(self.shard_lengths, tf.int64), permuted)
        ends = tf.cumsum(lengths)
        found = tf.searchsorted(ends, drawn, side="right")
        return tf.gather(permuted, found), drawn - tf.gather(ends - lengths, found)

    def rest_of_epoch(self, epoch, window):
        """What is left to read from the start of a window to the end of its epoch.

        Returns:
            shards: int64 [S], shard numbers in reading order, from the one the window begins in.
            skips: int64 [S], records to pass over in each; only the first is not 0.
        """
        start = tf.cast(window * self.window_examples, tf.int64)
        shards = self.shard_permutation(epoch)
        lengths = tf.gather(tf.constant(self.shard_lengths, tf.int64), shards)
        ends = tf.cumsum(lengths)
        first = tf.searchsorted(ends, start[None], side="right")[0]
        skips = tf.maximum(start - (ends - lengths), 0)
        return shards[first:], skips[first:]

    def _permutation(self, length, *identity):
        """A permutation of range(length), int64, that depends on the seed and `identity` only."""
        key = tf.constant([self.seed, 0], tf.int64)
        for number in identity:
            # fold_in draws in the dtype of what it folds in: an int would count as int32.
            key = tf.random.fold_in(key, tf.cast(number, tf.int64))
        return tf.random.experimental.stateless_shuffle(tf.range(length, dtype=tf.int64), key)
