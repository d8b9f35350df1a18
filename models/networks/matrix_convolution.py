"""Convolutions as matrix products, where a CPU computes these faster than convolutions.

oneDNN, TensorFlow's library on CPUs, reorders a kernel before each convolution, and is slow for many channels
on few pixels, such as the inner levels of a U-Net, and for a single output channel. These functions compute
the same sums as products of large matrices; they are differentiable any number of times. What was measured is
in tests/benchmarks/RESULTS.md, "Convolutions as products".
"""

from __future__ import annotations

import tensorflow as tf


def single_channel(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves with a kernel of one output channel at stride 1, without padding.

    Args:
      x: [B, H, W, C].
      kernel: [K, K, C, 1].

    Returns:
      [B, H-K+1, W-K+1, 1].
    """
    size, _, channels, _ = kernel.shape
    # First what each pixel adds to each of the outputs around it, then the sums: there are few of both.
    parts = tf.matmul(x, tf.reshape(tf.transpose(kernel, [2, 0, 1, 3]), [channels, -1]))  # [B, H, W, KK]
    rows, columns = tf.shape(x)[1] - size + 1, tf.shape(x)[2] - size + 1
    shifted = [
        parts[:, top : top + rows, left : left + columns, size * top + left]
        for top in range(size)
        for left in range(size)
    ]
    return tf.add_n(shifted)[..., tf.newaxis]
