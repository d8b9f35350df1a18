"""The colour spaces in which networks and losses can see pictures, by name, each scaled to [-1, 1]."""

import tensorflow as tf

from data.imaging.lab import lab_to_rgb, rgb_to_lab
from data.imaging.ycbcr import LUMA_WEIGHTS, rgb_to_ycbcr, ycbcr_to_rgb

_YCBCR = {
    f"ycbcr_{matrix}_{name}": {"matrix": matrix, "full_range": full_range}
    for matrix in LUMA_WEIGHTS
    for name, full_range in (("full", True), ("studio", False))
}
COLOUR_SPACES = ("rgb", *_YCBCR, "lab")

_LAB_OFFSET = (1.0, 0.0, 0.0)
_LAB_SCALE = (50.0, 110.0, 110.0)
_YCBCR_OFFSET = (127.5, 128.0, 128.0)  # in 8-bit numbers; grey is exactly 0 in both chroma channels


def rgb_to_space(images, space):
    """Red, green and blue as another colour space, scaled so that all channels are about as large.

    The first channel is how light a colour is, the other two are 0 for greys:
    - "ycbcr_bt601_full", "ycbcr_bt709_full": Y' / 127.5 - 1, (Cb - 128) / 127.5, (Cr - 128) / 127.5 of the
      8-bit numbers, not rounded; all of [-1, 1].
    - "ycbcr_bt601_studio", "ycbcr_bt709_studio": the same of studio range, so that the numbers 16 to 235 and
      16 to 240 give luma in [-0.875, 0.844] and chroma in [-0.879, 0.879].
    - "lab": L* / 50 - 1, a* / 110 and b* / 110, as the reference of pix2pix scales them for colourisation;
      colours of sRGB within [-1, 1].

    Args:
        images: float32 or float64 [..., 3], sRGB in [-1, 1]; values beyond are not clipped.
        space: one of COLOUR_SPACES; "rgb" gives the images themselves.

    Returns:
        A tensor of the same dtype and shape, differentiable.

    Raises:
        TypeError: the dtype is another: half precision would lose grey levels.
        ValueError: an unknown space, or other than 3 channels.
    """
    images = _checked(images, space)
    if space == "rgb":
        return images
    if space == "lab":
        return rgb_to_lab((images + 1.0) / 2.0) / _LAB_SCALE - _LAB_OFFSET
    return (rgb_to_ycbcr((images + 1.0) * 127.5, **_YCBCR[space]) - _YCBCR_OFFSET) / 127.5


def space_to_rgb(images, space):
    """The inverse of `rgb_to_space`, with its arguments; what no colour of sRGB has leaves [-1, 1]."""
    images = _checked(images, space)
    if space == "rgb":
        return images
    if space == "lab":
        return lab_to_rgb((images + _LAB_OFFSET) * _LAB_SCALE) * 2.0 - 1.0
    return ycbcr_to_rgb(images * 127.5 + _YCBCR_OFFSET, **_YCBCR[space]) / 127.5 - 1.0


def _checked(images, space):
    images = tf.convert_to_tensor(images)
    if space not in COLOUR_SPACES:
        raise ValueError(f"unknown colour space {space!r}; choose one of: {', '.join(COLOUR_SPACES)}")
    if images.dtype not in (tf.float32, tf.float64):
        raise TypeError(f"Colour spaces take float32 or float64 in [-1, 1], not {images.dtype.name}.")
    if images.shape[-1] != 3:
        raise ValueError(f"Colour spaces take three channels, not the shape {images.shape}.")
    return images
