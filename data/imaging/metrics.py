"""Image quality metrics of uint8 images, per image.

Every function takes two uint8 tensors of one shape [B, H, W, C] and returns float64 [B]; average over the
data set afterwards. Only uint8 is accepted, so no result can be wrong because of a wrong value range.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from data.imaging.similarity import structural_similarity

PSNR_CAP_DB = 100.0
"""PSNR of identical images: infinity, their true value, is not valid JSON and would make means infinite."""


def mae(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Mean absolute error over H, W, C in grey levels: uint8 [B, H, W, C] twice -> float64 [B]."""
    images, references = _as_float64(images, references)
    return tf.reduce_mean(tf.abs(images - references), axis=[1, 2, 3])  # [B]


def mse(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Mean squared error over H, W, C: uint8 [B, H, W, C] twice -> float64 [B]."""
    images, references = _as_float64(images, references)
    return tf.reduce_mean(tf.math.squared_difference(images, references), axis=[1, 2, 3])  # [B]


def rmse(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Square root of `mse`, in grey levels: uint8 [B, H, W, C] twice -> float64 [B]."""
    return tf.sqrt(mse(images, references))


def psnr_db(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Peak signal-to-noise ratio, 10 log10(255^2 / MSE), capped at 100 dB.

    Args:
      images: uint8 [B, H, W, C].
      references: uint8 [B, H, W, C].

    Returns:
      float64 [B] in dB; identical images give `PSNR_CAP_DB`.

    Raises:
      TypeError: a dtype is not uint8.
      ValueError: the shapes differ or are not [B, H, W, C].
    """
    errors = mse(images, references)
    # 10 log10(255^2 / floor) is the cap, and log(0) never happens.
    floor = 255.0**2 / 10.0 ** (PSNR_CAP_DB / 10.0)
    return 10.0 / math.log(10.0) * tf.math.log(255.0**2 / tf.maximum(errors, floor))


def ssim(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Structural similarity, Wang et al. 2004 (doi:10.1109/TIP.2003.819861).

    Computed for each channel and averaged over all of them, with the constants of `data.imaging.similarity`
    and L = 255.

    Args:
      images: uint8 [B, H, W, C], H and W at least 11.
      references: uint8 [B, H, W, C].

    Returns:
      float64 [B] in [-1, 1]; 1 for identical images.

    Raises:
      TypeError: a dtype is not uint8.
      ValueError: the shapes differ, are not [B, H, W, C], or H or W is less than 11.
    """
    x, y = _as_float64(images, references)
    return structural_similarity(x, y, peak=255.0)  # [B]


def _as_float64(images: tf.Tensor, references: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks two uint8 tensors of one shape [B, H, W, C] and returns both as float64."""
    images, references = tf.convert_to_tensor(images), tf.convert_to_tensor(references)
    for tensor in (images, references):
        if tensor.dtype != tf.uint8:
            raise TypeError(
                f"image metrics: take uint8 in [0, 255], not {tensor.dtype.name}; convert images in "
                "[-1, 1] with data.imaging.to_uint8"
            )
        if tensor.shape.rank != 4:
            raise ValueError(f"image metrics: take shapes [B, H, W, C], not {tensor.shape}")
    if not images.shape.is_compatible_with(references.shape):
        raise ValueError(
            f"image metrics: take two images of one shape, not {images.shape}, {references.shape}"
        )
    # Shapes unknown during tracing are compared at run time: broadcasting would hide a difference.
    same_shape = tf.debugging.assert_equal(tf.shape(images), tf.shape(references))
    with tf.control_dependencies([same_shape] if same_shape is not None else []):
        return tf.cast(images, tf.float64), tf.cast(references, tf.float64)


METRICS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "mae": mae,
    "mse": mse,
    "rmse": rmse,
    "psnr_db": psnr_db,
    "ssim": ssim,
}
"""Name of a metric -> function of two uint8 tensors [B, H, W, C] that returns float64 [B]."""

HIGHER_IS_BETTER = {"mae": False, "mse": False, "rmse": False, "psnr_db": True, "ssim": True}
"""Name of a metric -> whether a higher value is better."""
