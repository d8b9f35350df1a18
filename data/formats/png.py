"""PNG files: pixels of any bit depth, and what Pillow does not read from their headers.

Chunks: PNG specification, third edition (W3C), sections 5 and 11.
"""

from __future__ import annotations

import re
import struct
import typing
from typing import BinaryIO

import numpy as np
import tensorflow as tf

_SIGNATURE_BYTES = 8
_GREY, _COLOUR = 0, 2
_NODES = re.compile(r"\{\{.*?\}\} | \[Op:.*", re.DOTALL)  # names of graph nodes in TensorFlow's messages
_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


class PngHeader(typing.NamedTuple):
    """The header of a PNG file.

    Attributes:
      bits: per sample.
      colour_type: 0 grey, 2 colour, 3 palette, 4 grey and alpha, 6 colour and alpha.
      transparent: the one or three samples of the transparent colour, for types 0 and 2; None without one.
      late_metadata: whether metadata, such as an orientation, may follow the pixels.
    """

    bits: int
    colour_type: int
    transparent: tuple[int, ...] | None
    late_metadata: bool

    @property
    def channels(self) -> int:
        """Number of channels including transparency, which is not known for a palette."""
        return {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[self.colour_type] + (self.transparent is not None)


def read_header(file: BinaryIO) -> PngHeader:
    """Reads the `PngHeader` of an open PNG file and skips the pixels."""
    file.seek(_SIGNATURE_BYTES)
    bits, colour_type = 0, -1
    transparent: tuple[int, ...] | None = None
    pixels_seen = late_metadata = False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        body = file.read(length) if kind in (b"IHDR", b"tRNS") else b""
        file.seek(length - len(body) + 4, 1)  # also skips the checksum
        if kind == b"IHDR":
            bits, colour_type = struct.unpack(">BB", body[8:10])
        elif kind == b"tRNS" and colour_type in (_GREY, _COLOUR):
            # Two bytes per sample at every depth; "only the low-order bits are used".
            samples = struct.unpack(">H" if colour_type == _GREY else ">3H", body)
            transparent = tuple(sample & (2**bits - 1) for sample in samples)
        pixels_seen |= kind == b"IDAT"
        late_metadata |= pixels_seen and kind in _METADATA
    return PngHeader(bits, colour_type, transparent, late_metadata)


def decode(contents: bytes, header: PngHeader) -> np.ndarray:
    """Decodes the bytes of a PNG file.

    TensorFlow decodes it: Pillow drops the low bytes of 16-bit colours, fills missing rows with black, and
    does not detect all damage.

    Args:
      contents: of the file.
      header: of the file.

    Returns:
      uint8, or uint16 for 16 bits, [H, W, 1 to 4]; palettes become RGB.

    Raises:
      ValueError: the file is damaged, or too large for TensorFlow.
    """
    try:
        pixels = tf.io.decode_png(contents, dtype=tf.uint16 if header.bits == 16 else tf.uint8).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(_NODES.sub("", error.message)) from error
    return pixels if header.transparent is None else _with_alpha(pixels, header)


def _with_alpha(pixels: np.ndarray, header: PngHeader) -> np.ndarray:
    """Adds the alpha channel that the transparent colour of the header means to [H, W, 1 or 3]."""
    peak = np.iinfo(pixels.dtype).max
    # Decoders scale samples of fewer bits to the whole range.
    key = np.array(header.transparent) * peak // (2**header.bits - 1)
    clear = (pixels == key).all(axis=-1, keepdims=True)
    return np.concatenate([pixels, np.where(clear, 0, peak).astype(pixels.dtype)], axis=-1)
