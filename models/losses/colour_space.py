"""Colour spaces in which losses can compare pictures."""

from data import imaging
from models.networks.layers import at_least_float32

DOMAINS = imaging.COLOUR_SPACES


def to_domain(images, domain):
    """Red, green and blue as another colour space, as `data.imaging.rgb_to_space` scales it.

    Args:
      images: [B, H, W, 3] in [-1, 1]; half precision becomes float32.
      domain: one of DOMAINS; "rgb" takes values as they are, of any number of channels.

    Returns:
      [B, H, W, 3], differentiable.

    Raises:
      ValueError: an unknown domain.
    """
    images = at_least_float32(images)
    if domain == "rgb":
        return images
    return imaging.rgb_to_space(images, domain)
