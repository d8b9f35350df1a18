"""A convolution as a matrix product, where a CPU computes that faster.

oneDNN, TensorFlow's library on CPUs, takes outputs by blocks of channels and is slow for a single one: the
logits of a PatchGAN take a tenth of the time as a product. It is differentiable any number of times. What was
measured is in tests/benchmarks/RESULTS.md, "The step on a CPU".
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
