"""Orthonormal transforms of square blocks, as in video codecs: Walsh-Hadamard and cosine."""

import math

import numpy as np
import tensorflow as tf

JPEG_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Quantisation steps of the 8x8 DCT of luminance, rows by vertical frequency (Rec. ITU-T T.81, table K.1)."""


def block_hadamard(images: tf.Tensor, *, size: int) -> tf.Tensor:
    """Computes the Walsh-Hadamard transform of every block: H X H^T / size, H in Sylvester's order.

    Args:
      images: floating [B, H, W, C]; padded with zeros to multiples of `size`.
      size: height and width of a block in pixels, a power of 2; codecs use 4 and 8.

    Returns:
      Coefficients [B, ceil(H / size), ceil(W / size), C, size, size] of the same dtype.

    Raises:
      ValueError: `size` is not a power of 2.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"Hadamard blocks of {size}x{size} pixels: size must be a power of 2")
    x = _butterflies(_blocks(images, size))
    x = _butterflies(tf.linalg.matrix_transpose(x))
    return tf.linalg.matrix_transpose(x) / size


def block_dct(images: tf.Tensor, *, size: int) -> tf.Tensor:
    """Computes the DCT-II of every block, orthonormal: Rec. ITU-T T.81, A.3.3 for size 8.

    Args:
      images: floating [B, H, W, C]; padded with zeros to multiples of `size`.
      size: height and width of a block in pixels.

    Returns:
      Coefficients [B, ceil(H / size), ceil(W / size), C, size, size] of the same dtype, the constant
      part first; rows by vertical frequency.
    """
    frequency, position = np.mgrid[:size, :size]
    basis = np.sqrt(2 / size) * np.cos(np.pi * (2 * position + 1) * frequency / (2 * size))
    basis[0] = math.sqrt(1 / size)
    x = _blocks(images, size)
    basis = tf.constant(basis, x.dtype)  # [size, size]
    return tf.matmul(tf.matmul(basis, x), basis, transpose_b=True)


def _blocks(images: tf.Tensor, size: int) -> tf.Tensor:
    """[B, H, W, C] -> [B, ceil(H / size), ceil(W / size), C, size, size]."""
    shape = tf.shape(images)
    rows, columns = -(-shape[1] // size), -(-shape[2] // size)
    images = tf.pad(images, [[0, 0], [0, rows * size - shape[1]], [0, columns * size - shape[2]], [0, 0]])
    x = tf.reshape(images, [shape[0], rows, size, columns, size, shape[3]])
    return tf.transpose(x, [0, 1, 3, 5, 2, 4])


def _butterflies(x: tf.Tensor) -> tf.Tensor:
    """H x over the last axis, by sums and differences only: exact on every device."""
    if x.shape[-1] == 1:
        return x
    a, b = tf.split(x, 2, axis=-1)
    return tf.concat([_butterflies(a + b), _butterflies(a - b)], axis=-1)
