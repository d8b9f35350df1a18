"""From the output of a network to picture files with the values of its training targets."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from data import imaging
from data.description import ImageFormat
from data.imaging import ValueRange
from engine.errors import ConfigurationError
from engine.pictures import picture_formats
from engine.pictures.picture_formats import EXTENSIONS, PNG, TIFF

EXACT, SHOWN = "exact", "shown"
"""The pixels of an output: with the values of the training targets, and with 8 bits, to look at."""

RAW_EXTENSION = ".npy"

_GREY_OR_COLOUR = (1, 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """How outputs of a network become files.

    Attributes:
      format: of the pictures, one of `picture_formats.FORMATS`.
      trained: how the data set stored the training targets; None if that is not known.
      raw: whether the network's own output is written too.
      shows: whether pixels to look at are always needed, as for strips.
    """

    format: str = PNG
    trained: ImageFormat | None = None
    raw: bool = False
    shows: bool = False

    @property
    def has_alpha(self) -> bool:
        """Whether the network itself makes transparency, as its last channel."""
        return self.trained is not None and self.trained.alpha

    def is_picture(self, channels: int) -> bool:
        """Whether outputs of so many channels can be written as pictures."""
        return self.trained is not None or channels in _GREY_OR_COLOUR

    def endings(self, channels: int) -> list[str]:
        """The endings of the files of an output of so many channels."""
        endings = []
        if self.is_picture(channels):
            deep = self.format == PNG and not self._fits_png(channels, self._value_format("uint8")[0])
            endings += [EXTENSIONS[TIFF]] if deep else []
            if not deep or channels in _GREY_OR_COLOUR:
                endings.append(EXTENSIONS[self.format])
        return [*endings, *([RAW_EXTENSION] if self.raw else [])]

    def pixels(self, rgb: tf.Tensor, *, input_dtype: str) -> dict[str, np.ndarray]:
        """Converts an output, or some of its rows, to the pixels that `files` needs.

        If the targets have 8 bits and the picture that was translated has 16, the result has 16.

        Args:
          rgb: [H, W, C], from -1 to 1.
          input_dtype: of the picture that was translated: "uint8", "uint16" or "float32".

        Returns:
          "exact" and maybe "shown" -> [H, W, C].
        """
        dtype, (low, high) = self._value_format(input_dtype)
        made = {}
        if self.format in (PNG, TIFF):
            made[EXACT] = imaging.signed_to_range(rgb, low=low, high=high, dtype=tf.as_dtype(dtype)).numpy()
        if self.shows or self.format not in (PNG, TIFF) or dtype == "float32":
            made[SHOWN] = imaging.to_uint8(rgb).numpy()
        return made

    def files(self, pixels: Mapping[str, np.ndarray], alpha: np.ndarray | None) -> dict[str, bytes]:
        """Encodes a picture.

        Args:
          pixels: as of `pixels`, of the whole picture.
          alpha: transparency of the picture that was translated, float32 [H, W, 1] from 0 to 1; None if it
            has none.

        Returns:
          Extension -> content of a file, the most exact one first. For PNG: PNG if that can hold the values;
          otherwise TIFF, and a PNG with 8 bits to look at if there are 1 or 3 channels.

        Raises:
          ConfigurationError: the format cannot hold such a picture.
        """
        values = pixels[EXACT if self.format in (PNG, TIFF) else SHOWN]
        channels = values.shape[-1]
        if self.format != PNG or self._fits_png(channels, values.dtype.name):
            return {EXTENSIONS[self.format]: self._encode(values, self.format, alpha)}
        files = {EXTENSIONS[TIFF]: self._encode(values, TIFF, alpha)}
        if channels in _GREY_OR_COLOUR:
            files[EXTENSIONS[PNG]] = self._encode(pixels[SHOWN], PNG, alpha)
        return files

    def losses(self, *, channels: int, input_dtype: str, alpha: np.ndarray | None) -> Iterator[str]:
        """What the format cannot hold of an output of so many channels, for the user."""
        dtype, _ = self._value_format(input_dtype)
        if self.format != PNG and not picture_formats.holds_dtype(self.format, dtype):
            yield (f"of {dtype} values, written with the 8 bits of {self.format}; --format=tiff keeps them")
        if alpha is not None and not self._takes_alpha(channels, self.format):
            yield f"written without the transparency, which {self.format} cannot hold here"

    def _encode(self, values: np.ndarray, format: str, alpha: np.ndarray | None) -> bytes:
        has_alpha, channels = self.has_alpha, values.shape[-1]
        if not picture_formats.holds_channels(format, channels, has_alpha=has_alpha):
            raise ConfigurationError(
                f"{channels} channels{' with transparency' if has_alpha else ''} do not fit into {format}; "
                "choose --format=png or tiff"
            )
        if alpha is not None and self._takes_alpha(channels, format):
            values, has_alpha = _with_alpha(values, alpha), True
        return picture_formats.encode(values, format, has_alpha=has_alpha)

    def _takes_alpha(self, channels: int, format: str) -> bool:
        """Whether the transparency of an input can become one more channel of an output."""
        is_picture = channels in _GREY_OR_COLOUR and not self.has_alpha
        return is_picture and picture_formats.holds_channels(format, channels + 1, has_alpha=True)

    def _fits_png(self, channels: int, dtype: str) -> bool:
        """Whether PNG holds exact pixels of so many channels."""
        return picture_formats.holds_dtype(PNG, dtype) and picture_formats.holds_channels(
            PNG, channels, has_alpha=self.has_alpha
        )

    def _value_format(self, input_dtype: str) -> tuple[str, ValueRange]:
        """Dtype and value range of the exact pixels."""
        trained = self.trained
        if trained is not None and (trained.dtype, tuple(trained.value_range)) != ("uint8", (0, 255)):
            return trained.dtype, trained.value_range
        return ("uint16", (0, 65535)) if input_dtype == "uint16" else ("uint8", (0, 255))


def raw_file(output: np.ndarray) -> bytes:
    """Encodes the output of a network, float32 [H, W, C], as .npy."""
    file = io.BytesIO()
    np.save(file, output)
    return file.getvalue()


def _with_alpha(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Adds transparency, float32 [H, W, 1] from 0 to 1, as the last channel of [H, W, C]."""
    if values.dtype.kind == "u":
        alpha = np.round(alpha * np.float32(np.iinfo(values.dtype).max))
    return np.concatenate([values, alpha.astype(values.dtype)], axis=-1)
