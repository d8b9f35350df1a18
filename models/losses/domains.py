"""Colour spaces in which losses can compare pictures."""

from data import imaging
from models.layers import at_least_float32

DOMAINS = ("rgb", "ycbcr_bt601", "ycbcr_bt709", "lab")


def to_domain(images, domain):
    """Red, green and blue as another colour space, scaled so that all channels are about as large.

    - "ycbcr_bt601", "ycbcr_bt709": full range; luma, and chroma around 0, all within [-1, 1].
    - "lab": L* / 50 - 1, a* / 110 and b* / 110, as the reference of pix2pix scales them for colourisation.

    Args:
      images: [B, H, W, 3] in [-1, 1]; half precision becomes float32.
      domain: one of DOMAINS.

    Returns:
      [B, H, W, 3], differentiable.

    Raises:
      ValueError: an unknown domain.
    """
    images = at_least_float32(images)
    if domain == "rgb":
        return images
    if domain == "lab":
        return imaging.rgb_to_lab((images + 1) / 2) / [50.0, 110.0, 110.0] - [1.0, 0.0, 0.0]
    if domain in DOMAINS:
        levels = imaging.rgb_to_ycbcr(
            (images + 1) * 127.5, matrix=domain.removeprefix("ycbcr_"), full_range=True
        )
        return (levels - [127.5, 128.0, 128.0]) / 127.5
    raise ValueError(f"unknown colour space {domain!r}; choose one of: {', '.join(DOMAINS)}")
