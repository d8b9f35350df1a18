"""The colour spaces of images in networks and losses, by name, each scaled to [-1, 1]."""

import tensorflow as tf

from data.imaging.lab import lab_to_rgb, rgb_to_lab
from data.imaging.ycbcr import LUMA_WEIGHTS, rgb_to_ycbcr, ycbcr_to_rgb

_YCBCR = {  # name -> (matrix, full range)
    f"ycbcr_{matrix}_{name}": (matrix, full_range)
    for matrix in LUMA_WEIGHTS
    for name, full_range in (("full", True), ("studio", False))
}
COLOUR_SPACES = ("rgb", *_YCBCR, "lab")

_LAB_OFFSET = (1.0, 0.0, 0.0)
_LAB_SCALE = (50.0, 110.0, 110.0)
_YCBCR_OFFSET = (127.5, 128.0, 128.0)  # in 8-bit values; grey is exactly 0 in both chroma channels


def rgb_to_space(images: tf.Tensor, space: str) -> tf.Tensor:
    """Converts sRGB to another colour space, scaled so that all channels have similar ranges.

    The first channel is lightness; the other two are 0 for greys:
    - "ycbcr_bt601_full", "ycbcr_bt709_full": Y' / 127.5 - 1, (Cb - 128) / 127.5, (Cr - 128) / 127.5 of the
      8-bit values, not rounded; all of [-1, 1].
    - "ycbcr_bt601_studio", "ycbcr_bt709_studio": the same in studio range, so that the values 16 to 235 and
      16 to 240 give luma in [-0.875, 0.844] and chroma in [-0.879, 0.879].
    - "lab": L* / 50 - 1, a* / 110 and b* / 110, as in pix2pix's reference code for colourisation;
      colours of sRGB within [-1, 1].

    Args:
      images: float32 or float64 [..., 3], sRGB in [-1, 1]; values outside are not clipped.
      space: one of COLOUR_SPACES; "rgb" returns the images unchanged.

    Returns:
      The same dtype and shape; differentiable.

    Raises:
      TypeError: another dtype; half precision would lose grey levels.
      ValueError: the space is unknown, or there are not 3 channels.
    """
    images = _checked(images, space)
    if space == "rgb":
        return images
    if space == "lab":
        return rgb_to_lab((images + 1.0) / 2.0) / _LAB_SCALE - _LAB_OFFSET
    matrix, full_range = _YCBCR[space]
    ycbcr = rgb_to_ycbcr((images + 1.0) * 127.5, matrix=matrix, full_range=full_range)
    return (ycbcr - _YCBCR_OFFSET) / 127.5


def space_to_rgb(images: tf.Tensor, space: str) -> tf.Tensor:
    """The inverse of `rgb_to_space`, with its arguments; colours outside sRGB give values outside [-1, 1]."""
    images = _checked(images, space)
    if space == "rgb":
        return images
    if space == "lab":
        return lab_to_rgb((images + _LAB_OFFSET) * _LAB_SCALE) * 2.0 - 1.0
    matrix, full_range = _YCBCR[space]
    rgb = ycbcr_to_rgb(images * 127.5 + _YCBCR_OFFSET, matrix=matrix, full_range=full_range)
    return rgb / 127.5 - 1.0


def _checked(images: tf.Tensor, space: str) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    if space not in COLOUR_SPACES:
        raise ValueError(f"colour space {space!r}: not known; choose one of: {', '.join(COLOUR_SPACES)}")
    if images.dtype not in (tf.float32, tf.float64):
        raise TypeError(
            f"colour space {space!r}: takes float32 or float64 in [-1, 1], not {images.dtype.name}"
        )
    if images.shape[-1] != 3:
        raise ValueError(f"colour space {space!r}: takes three channels, not the shape {images.shape}")
    return images
