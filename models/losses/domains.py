"""Colour spaces in which losses can compare pictures."""

from data import imaging
from models.layers import at_least_float32

DOMAINS = imaging.COLOUR_SPACES


def to_domain(images, domain):
    """Red, green and blue as another colour space, as `data.imaging.rgb_to_space` scales it.

    Args:
      images: [B, H, W, 3] in [-1, 1]; half precision becomes float32.
      domain: one of DOMAINS.

    Returns:
      [B, H, W, 3], differentiable.

    Raises:
      ValueError: an unknown domain.
    """
    return imaging.rgb_to_space(at_least_float32(images), domain)
