"""PNG files: pixels of any depth, and what Pillow does not tell of them.

Chunks: PNG specification, third edition (W3C), sections 5 and 11.
"""

import re
import struct
import typing

import numpy as np
import tensorflow as tf

_SIGNATURE_BYTES = 8
_GREY, _COLOUR = 0, 2
_NODES = re.compile(r"\{\{.*?\}\} | \[Op:.*", re.DOTALL)  # where in the graph, around TensorFlow's messages
_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


class PngHeader(typing.NamedTuple):
    """What a PNG file says of itself.

    Attributes:
      bits: of a sample.
      colour_type: 0 grey, 2 colour, 3 palette, 4 grey and alpha, 6 colour and alpha.
      transparent: the sample or the three samples that stand for "transparent", of types 0 and 2; or None.
      late_metadata: whether there may be metadata (an orientation) behind the pixels.
    """

    bits: int
    colour_type: int
    transparent: tuple[int, ...] | None
    late_metadata: bool

    @property
    def channels(self):
        """Number of channels with the transparency; a palette's is not known here."""
        return {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[self.colour_type] + (self.transparent is not None)


def read_header(file):
    """Reads the `PngHeader` of an open binary file of PNG signature, passing over the pixels."""
    file.seek(_SIGNATURE_BYTES)
    bits = colour_type = transparent = None
    pixels_seen = late_metadata = False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        body = file.read(length) if kind in (b"IHDR", b"tRNS") else b""
        file.seek(length - len(body) + 4, 1)  # also passes over the checksum
        if kind == b"IHDR":
            bits, colour_type = struct.unpack(">BB", body[8:10])
        elif kind == b"tRNS" and colour_type in (_GREY, _COLOUR):
            # Two bytes a sample whatever the depth; "only the low-order bits are used".
            samples = struct.unpack(">H" if colour_type == _GREY else ">3H", body)
            transparent = tuple(sample & (2**bits - 1) for sample in samples)
        pixels_seen |= kind == b"IDAT"
        late_metadata |= pixels_seen and kind in _METADATA
    return PngHeader(bits, colour_type, transparent, late_metadata)


def decode(contents, header):
    """Decodes the bytes of a PNG: uint8, or uint16 of 16 bits, [H, W, 1 to 4]; palettes as colour.

    By TensorFlow: Pillow drops the low bytes of 16-bit colours, fills missing rows with black, and does not
    see all damage.

    Raises:
      ValueError: damaged, or too large for TensorFlow.
    """
    try:
        pixels = tf.io.decode_png(contents, dtype=tf.uint16 if header.bits == 16 else tf.uint8).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(_NODES.sub("", error.message)) from error
    return pixels if header.transparent is None else _with_alpha(pixels, header)


def _with_alpha(pixels, header):
    """Adds to [H, W, 1 or 3] the alpha channel that the transparent colour of the header stands for."""
    peak = np.iinfo(pixels.dtype).max
    # Decoders spread samples of fewer bits over the whole range.
    key = np.array(header.transparent) * peak // (2**header.bits - 1)
    clear = (pixels == key).all(axis=-1, keepdims=True)
    return np.concatenate([pixels, np.where(clear, 0, peak).astype(pixels.dtype)], axis=-1)
