"""Metrics of masks: IoU, Dice and pixel accuracy of images that are thresholded at half of their range.

A value is foreground if it is at least (lowest + highest) / 2: exactly half of the range is foreground. That
is 128 and above of uint8, and 0.5 and above of floats in [0, 1]. Each channel is a mask of its own.
"""

import tensorflow as tf

from data.imaging.image_ranges import ValueRange, pair_in_float64


def mask_iou(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Intersection over union of the foregrounds, averaged over the channels.

    Source: Jaccard 1901 (doi:10.5169/seals-266450); as in the PASCAL VOC challenge, Everingham et al. 2015
    (doi:10.1007/s11263-014-0733-5).

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype (uint8, uint16).

    Returns:
      float64 [B] in [0, 1]; 1 for a channel in which both masks are empty.

    Raises:
      TypeError, ValueError: as every metric of `data.imaging.metrics`.
    """
    x, y = _masks(images, references, value_range)
    shared, either = _count(x & y), _count(x | y)  # [B, C]
    return tf.reduce_mean(tf.where(either > 0, shared / tf.maximum(either, 1), 1), axis=1)


def mask_dice(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Dice coefficient, also F1: twice the shared foreground over the sum of both, averaged over channels.

    Source: Dice 1945 (doi:10.2307/1932409).

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype (uint8, uint16).

    Returns:
      float64 [B] in [0, 1]; 1 for a channel in which both masks are empty.

    Raises:
      TypeError, ValueError: as every metric of `data.imaging.metrics`.
    """
    x, y = _masks(images, references, value_range)
    shared, both = _count(x & y), _count(x) + _count(y)  # [B, C]
    return tf.reduce_mean(tf.where(both > 0, 2 * shared / tf.maximum(both, 1), 1), axis=1)


def pixel_accuracy(
    images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None
) -> tf.Tensor:
    """Share of the pixels whose masks agree in all channels.

    Source: Long et al. 2015 (doi:10.1109/CVPR.2015.7298965), section 5.

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype (uint8, uint16).

    Returns:
      float64 [B] in [0, 1].

    Raises:
      TypeError, ValueError: as every metric of `data.imaging.metrics`.
    """
    x, y = _masks(images, references, value_range)
    agree = tf.reduce_all(x == y, axis=3)  # [B, H, W]
    return tf.reduce_mean(tf.cast(agree, tf.float64), axis=[1, 2])


def _masks(
    images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Both as bool [B, H, W, C], True for foreground."""
    x, y, (low, high) = pair_in_float64(images, references, value_range, what="mask metrics")
    threshold = (low + high) / 2
    return x >= threshold, y >= threshold


def _count(masks: tf.Tensor) -> tf.Tensor:
    """Foreground pixels of each channel: bool [B, H, W, C] -> float64 [B, C]."""
    return tf.reduce_sum(tf.cast(masks, tf.float64), axis=[1, 2])
