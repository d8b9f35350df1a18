"""PSNR and SSIM of luma without the border: the convention of super-resolution.

Y' is the studio luma of BT.601 (MATLAB's `rgb2ycbcr`), neither rounded nor clipped, measured with a peak of
255 although it spans only 16 to 235: that reads 1.32 dB more than luma in full range. Images of one channel
are their own luma. Images of any range are first mapped to [0, 255], in float64, so 16-bit images keep their
depth.

Sources: Dong et al., arXiv 1501.00092 (SRCNN), section 4, for luma; BasicSR's `calculate_psnr` and
`calculate_ssim` with test_y_channel=True for the details. MATLAB's own scripts round Y' of uint8 images,
which changes the second decimal.
"""

import tensorflow as tf

from data.imaging.image_ranges import ValueRange, pair_in_float64
from data.imaging.metrics import capped_psnr_db
from data.imaging.similarity import structural_similarity
from data.imaging.ycbcr import rgb_to_ycbcr

_PEAK = 255.0


def luma_psnr_db(
    images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None, *, border: int
) -> tf.Tensor:
    """PSNR of luma, capped at `data.imaging.PSNR_CAP_DB`.

    Args:
      images: [B, H, W, C] with RGB or 1 channel.
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype (uint8, uint16).
      border: pixels to leave out on each side; by convention the factor of the enlargement.

    Returns:
      float64 [B] in dB.

    Raises:
      TypeError, ValueError: as every metric of `data.imaging.metrics`; or there are 2 channels or more than
        3; or nothing is left without the border.
    """
    x, y = _luma_pair(images, references, value_range, border)
    return capped_psnr_db(tf.reduce_mean(tf.math.squared_difference(x, y), axis=[1, 2, 3]), peak=_PEAK)


def luma_ssim(
    images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None = None, *, border: int
) -> tf.Tensor:
    """SSIM of luma; see `data.imaging.ssim`.

    Args:
      images: [B, H, W, C] with RGB or 1 channel; H and W without the border at least 11.
      references: [B, H, W, C].
      value_range: of both; None for that of their dtype (uint8, uint16).
      border: pixels to leave out on each side; by convention the factor of the enlargement.

    Returns:
      float64 [B] in [-1, 1].

    Raises:
      TypeError, ValueError: as `luma_psnr_db`, or the images are too small.
    """
    x, y = _luma_pair(images, references, value_range, border)
    return structural_similarity(x, y, peak=_PEAK)


def _luma_pair(
    images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None, border: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The luma of both as float64 [B, H - 2 border, W - 2 border, 1]."""
    x, y, (low, high) = pair_in_float64(images, references, value_range, what="luma metrics")
    channels = x.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"luma metrics: need RGB or 1 channel, not {channels}; leave other channels out")
    if border < 0:
        raise ValueError(f"luma metrics: border = {border}: must be at least 0; correct it")
    for name, pixels in zip(("height", "width"), x.shape[1:3], strict=True):
        if pixels is not None and pixels <= 2 * border:
            raise ValueError(
                f"luma metrics: border = {border} leaves nothing of the {name} of {pixels} pixels; lower it"
            )
    return _luma(x, low, high, border), _luma(y, low, high, border)


def _luma(images: tf.Tensor, low: float, high: float, border: int) -> tf.Tensor:
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    levels = images[:, border : height - border, border : width - border]
    if (low, high) != (0.0, _PEAK):
        levels = (levels - low) * (_PEAK / (high - low))
    return levels if levels.shape[-1] == 1 else rgb_to_ycbcr(levels)[..., :1]
