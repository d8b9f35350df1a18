"""Image quality metrics, per image: errors, PSNR, SSIM.

Every function compares two batches of one dtype and one shape [B, H, W, C] in float64, at the depth of the
images: nothing is rounded or clipped. It returns float64 [B]; average over the data set afterwards.

The range of uint8 images is [0, 255] and that of uint16 images [0, 65535]; others need `value_range`, the
lowest and the highest possible value, such as (0.0, 1.0) for floats or (0, 4095) for 12 bits in uint16. So no
result can be wrong because of a wrong value range. Every function raises:
  TypeError: the dtypes differ, or floats come without a range.
  ValueError: the shapes differ or are not [B, H, W, C], or references lie far outside the range.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from data.imaging.image_ranges import ValueRange, pair_in_float64
from data.imaging.similarity import MS_SSIM_WEIGHTS, multiscale_similarity, structural_similarity

PSNR_CAP_DB = 100.0
"""PSNR of identical images: infinity, their true value, is not valid JSON and would make means infinite.

Images that differ by less than this are capped too. `identical` tells which images are equal, to be counted.
"""


def mae(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Mean absolute error over H, W, C, in units of the images; Willmott and Matsuura 2005, equation 2.

    Source: doi:10.3354/cr030079.

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.

    Returns:
      float64 [B].
    """
    x, y, _ = pair_in_float64(images, references, value_range)
    return tf.reduce_mean(tf.abs(x - y), axis=[1, 2, 3])  # [B]


def mse(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Mean squared error over H, W, C, in squared units of the images; Gonzalez and Woods, section 8.1.

    Source: Digital Image Processing, 4th edition, "Fidelity criteria".

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.

    Returns:
      float64 [B].
    """
    x, y, _ = pair_in_float64(images, references, value_range)
    return tf.reduce_mean(tf.math.squared_difference(x, y), axis=[1, 2, 3])  # [B]


def rmse(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Square root of `mse`, in units of the images.

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.

    Returns:
      float64 [B].
    """
    return tf.sqrt(mse(images, references, value_range))


def psnr_db(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Peak signal-to-noise ratio, 10 log10(L^2 / MSE) with the length L of the range, capped at 100 dB.

    Source: Huynh-Thu and Ghanbari 2008 (doi:10.1049/el:20080522), equation 1.

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.

    Returns:
      float64 [B] in dB; identical images give `PSNR_CAP_DB`.
    """
    x, y, (low, high) = pair_in_float64(images, references, value_range)
    errors = tf.reduce_mean(tf.math.squared_difference(x, y), axis=[1, 2, 3])  # [B]
    return capped_psnr_db(errors, peak=high - low)


def capped_psnr_db(errors: tf.Tensor, *, peak: float) -> tf.Tensor:
    """PSNR of mean squared errors: float64 [B] -> float64 [B] in dB, at most `PSNR_CAP_DB`."""
    # 10 log10(peak^2 / floor) is the cap, and log(0) never happens.
    floor = peak**2 / 10.0 ** (PSNR_CAP_DB / 10.0)
    return 10.0 / math.log(10.0) * tf.math.log(peak**2 / tf.maximum(errors, floor))


def identical(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Whether all values of an image equal its reference's, so that its PSNR is only the cap: bool [B].

    Args:
      images: [B, H, W, C].
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.
    """
    x, y, _ = pair_in_float64(images, references, value_range)
    return tf.reduce_all(x == y, axis=[1, 2, 3])


def ssim(images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None) -> tf.Tensor:
    """Structural similarity, Wang et al. 2004 (doi:10.1109/TIP.2003.819861).

    Computed for each channel and averaged over all of them, with the constants of `data.imaging.similarity`
    and the length of the range as L.

    Args:
      images: [B, H, W, C], H and W at least 11.
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.

    Returns:
      float64 [B] in [-1, 1]; 1 for identical images.

    Raises:
      TypeError, ValueError: as every metric, or H or W is less than 11.
    """
    x, y, (low, high) = pair_in_float64(images, references, value_range)
    return structural_similarity(x - low, y - low, peak=high - low)  # [B]


def ms_ssim(
    images: tf.Tensor,
    references: tf.Tensor,
    value_range: ValueRange | None = None,
    *,
    weights: Sequence[float] = MS_SSIM_WEIGHTS,
) -> tf.Tensor:
    """Multi-scale structural similarity, Wang et al. 2003 (doi:10.1109/ACSSC.2003.1292216).

    See `data.imaging.multiscale_similarity`. Figures of different weights are not comparable.

    Args:
      images: [B, H, W, C], H and W at least 161 for five scales: see `data.imaging.min_image_size`.
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype.
      weights: one exponent for each scale, from fine to coarse; by default the five published ones.

    Returns:
      float64 [B] in (0, 1]; 1 for identical images.

    Raises:
      TypeError, ValueError: as every metric, or H or W is too small for that many scales.
    """
    x, y, (low, high) = pair_in_float64(images, references, value_range)
    return multiscale_similarity(x - low, y - low, peak=high - low, weights=weights)  # [B]


METRICS: dict[str, Callable[..., tf.Tensor]] = {
    "mae": mae,
    "mse": mse,
    "rmse": rmse,
    "psnr_db": psnr_db,
    "ssim": ssim,
}
"""Name of a metric -> function of two batches [B, H, W, C] and their range that returns float64 [B]."""

HIGHER_IS_BETTER = {
    "mae": False,
    "mse": False,
    "rmse": False,
    "psnr_db": True,
    "ssim": True,
    "ms_ssim": True,
    "luma_psnr_db": True,
    "luma_ssim": True,
    "mask_iou": True,
    "mask_dice": True,
    "pixel_accuracy": True,
    "lpips": False,
    "kid": False,
    "fid": False,
    "r2": True,
    "accuracy": True,
    "cross_entropy": False,
}
"""Name of a metric -> whether a higher value is better; KID and FID are of whole sets of images.

The last three are of labels, and so may be MAE, MSE and RMSE.
"""
