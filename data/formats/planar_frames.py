"""Frames of planar video: from the samples of their planes to pixels, and back."""

from __future__ import annotations

import dataclasses

import numpy as np

from data.formats import chroma
from data.imaging import ycbcr

PIXEL_FORMATS = {"yuv420p": (2, 8), "yuv444p": (1, 8), "yuv420p10": (2, 10), "yuv444p10": (1, 10)}
"""Name -> (luma samples per chroma sample along each axis, bits per sample)."""

COLOURS = ("rgb", "ycbcr", "y")
"""What pixels are: RGB; the planes as they are; luma as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanarFrames:
    """The frames of a video, which all have one format.

    A frame is stored as the samples of luma, Cb and Cr, one plane after the other, row by row. Its pixels
    are one of `COLOURS`: "rgb" is converted, with chroma interpolated linearly, rounded and clipped; in
    "ycbcr" chroma is repeated to the size of luma; "y" has one channel.

    Attributes:
      width: in pixels.
      height: in pixels.
      pixel_format: a key of `PIXEL_FORMATS`; 10 bits are little-endian 16-bit words.
      full_range: whether values cover the whole range of the bits; else the studio range (16 to 235 with 8
        bits).
      chroma_location: of 4:2:0, one of `data.formats.chroma.LOCATIONS`.
      matrix: "bt601" or "bt709", of the conversion between RGB and planes.
      colours: one of `COLOURS`.
    """

    width: int
    height: int
    pixel_format: str = "yuv420p"
    full_range: bool = False
    chroma_location: str = "left"
    matrix: str = "bt601"
    colours: str = "rgb"

    @property
    def step(self) -> int:
        """Luma samples per chroma sample along each axis."""
        return PIXEL_FORMATS[self.pixel_format][0]

    @property
    def bits(self) -> int:
        """Bits per sample."""
        return PIXEL_FORMATS[self.pixel_format][1]

    @property
    def peak(self) -> int:
        """The highest value of samples and pixels; the lowest is 0."""
        return 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        """Of samples and pixels: uint8 or uint16."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def channels(self) -> int:
        """Of pixels."""
        return 1 if self.colours == "y" else 3

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        height, width = self._chroma_size
        return (self.width * self.height + 2 * height * width) * (self.bits + 7 >> 3)

    @property
    def _chroma_size(self) -> tuple[int, int]:
        return -(-self.height // self.step), -(-self.width // self.step)

    def split(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The planes of a frame: luma [H, W] and chroma [2, H', W'] of its samples [N]."""
        pixels = self.height * self.width
        return (
            samples[:pixels].reshape(self.height, self.width),
            samples[pixels:].reshape(2, *self._chroma_size),
        )

    def to_pixels(self, samples: np.ndarray) -> np.ndarray:
        """Converts the samples of a frame to pixels.

        Args:
          samples: [N], those of the three planes.

        Returns:
          uint8 or uint16 [H, W, 1 or 3].
        """
        luma, planes = self.split(samples)
        size = {"height": self.height, "width": self.width}
        if self.colours == "y":
            return luma[..., np.newaxis].astype(self.dtype)
        if self.colours == "ycbcr":
            if self.step == 2:
                planes = chroma.repeated(planes, **size)
            return np.ascontiguousarray(_interleaved(luma, planes), self.dtype)
        if self.step == 2:
            planes = chroma.interpolated(planes, **size, location=self.chroma_location)
        rgb = ycbcr.ycbcr_to_rgb(
            _interleaved(luma, planes).astype(np.float64),
            matrix=self.matrix,
            full_range=self.full_range,
            bits=self.bits,
        )
        return self._rounded(rgb)

    def to_samples(self, pixels: np.ndarray, *, chroma_samples: np.ndarray | None = None) -> np.ndarray:
        """Converts pixels to the samples of a frame; the inverse of `to_pixels`, before values are rounded.

        Args:
          pixels: floating [H, W, 1 or 3], from 0 to `peak`; values outside are clipped. One channel of
            colours "rgb" is grey.
          chroma_samples: [2, H', W'] of colours "y"; None is grey.

        Returns:
          uint8 or uint16 [N].
        """
        pixels = np.clip(pixels, 0, self.peak)
        if self.colours == "y":
            luma, planes = pixels[..., 0], chroma_samples
            if planes is None:
                planes = np.full((2, *self._chroma_size), 2.0 ** (self.bits - 1))
        else:
            if self.colours == "rgb":
                pixels = ycbcr.rgb_to_ycbcr(
                    np.broadcast_to(pixels, (self.height, self.width, 3)).astype(np.float64),
                    matrix=self.matrix,
                    full_range=self.full_range,
                    bits=self.bits,
                )
            luma, planes = pixels[..., 0], np.ascontiguousarray(np.moveaxis(pixels[..., 1:], -1, 0))
            if self.step == 2 and self.colours == "rgb":
                planes = chroma.subsampled(planes, location=self.chroma_location)
            elif self.step == 2:
                planes = chroma.averaged(planes)
        return self._rounded(np.concatenate([luma.ravel(), planes.ravel()]))

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest numbers from 0 to `peak`, halves up."""
        return np.clip(np.floor(values + 0.5), 0, self.peak).astype(self.dtype)


def _interleaved(luma: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """[H, W, 3] of luma [H, W] and chroma [2, H, W], still planes in memory."""
    return np.moveaxis(np.concatenate([luma[np.newaxis], planes]), 0, -1)
