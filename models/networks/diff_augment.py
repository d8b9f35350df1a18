"""DiffAugment: differentiable augmentation of the images that a discriminator sees, real and fake alike.

Source: Zhao et al., arXiv 2006.10738, and its code.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.task import Seeds

POLICIES = ("colour", "translation", "cutout")

_TRANSLATION = 1 / 8  # largest translation, as a fraction of height and width
_CUTOUT = 1 / 2  # height and width of the rectangle, as a fraction of the image's


def diff_augment(images: tf.Tensor, seeds: Seeds, *, policy: Sequence[str], name: str) -> tf.Tensor:
    """Augments each image at random, by the parts of the policy in their order.

    - "colour": adds a value in [-0.5, 0.5) to all pixels; multiplies the difference between each pixel's
      channels and their mean by a value in [0, 2); multiplies the difference from the image's mean by a value
      in [0.5, 1.5).
    - "translation": shifts the image by up to an eighth of its height and width, and fills with zeros (grey).
    - "cutout": sets a rectangle of half the height and half the width to zero; its centre is anywhere in the
      image.

    The random numbers depend on the step, not on replicas or micro-batches.

    Args:
      images: floating [B, H, W, C] in [-1, 1].
      seeds: `step.seeds`.
      policy: some of POLICIES.
      name: of the random numbers. Calls with the same name in one step get the same augmentation (an input
        and its output), calls with different names different ones (real and fake).

    Returns:
      The same shape and dtype; gradients flow to the images.

    Raises:
      ValueError: a part of the policy is unknown.
    """
    for part in policy:
        if part not in POLICIES:
            raise ValueError(f"augmentation {part!r}: unknown; use some of {', '.join(POLICIES)}")
        drawn = seeds.uniform(f"diff_augment/{name}/{part}", (3,))  # [B, 3]
        images = _PARTS[part](images, tf.cast(drawn, images.dtype))
    return images


def _colour(x: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    brightness, saturation, contrast = (drawn[:, k, None, None, None] for k in range(3))  # [B, 1, 1, 1]
    x = x + brightness - 0.5
    grey = tf.reduce_mean(x, axis=3, keepdims=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)
    return (x - mean) * (contrast + 0.5) + mean


def _translation(x: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    for axis in (1, 2):
        size = tf.shape(x)[axis]
        largest = _scaled_size(_TRANSLATION, size)
        shift = _to_integers(drawn[:, axis], 2 * largest + 1) - largest  # [B]
        # Positions outside the image are clipped to a border of zeros on each side of it.
        positions = tf.clip_by_value(tf.range(size) + shift[:, None] + 1, 0, size + 1)  # [B, size]
        border = [[1, 1] if a == axis else [0, 0] for a in range(4)]
        x = tf.ensure_shape(tf.gather(tf.pad(x, border), positions, axis=axis, batch_dims=1), x.shape)
    return x


def _cutout(x: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    inside = []
    for axis in (1, 2):
        size = tf.shape(x)[axis]
        length = _scaled_size(_CUTOUT, size)
        first = _to_integers(drawn[:, axis], size + (1 - length % 2)) - length // 2  # [B]
        positions = tf.range(size)
        inside.append((positions >= first[:, None]) & (positions < first[:, None] + length))  # [B, size]
    hole = inside[0][:, :, None] & inside[1][:, None, :]  # [B, H, W]
    return tf.where(hole[..., None], tf.zeros([], x.dtype), x)


def _scaled_size(fraction: float, size: tf.Tensor) -> tf.Tensor:
    return tf.cast(fraction * tf.cast(size, tf.float32) + 0.5, tf.int32)


def _to_integers(drawn: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) as uniform integers 0, ..., count - 1."""
    return tf.minimum(tf.cast(drawn * tf.cast(count, drawn.dtype), tf.int32), count - 1)


_PARTS = {"colour": _colour, "translation": _translation, "cutout": _cutout}
