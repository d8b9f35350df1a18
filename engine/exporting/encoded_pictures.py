"""Pictures as the bytes of image files, decoded and encoded in a graph."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from data import imaging
from data.description import ImageFormat
from data.tfrecords.image_decoding import decode_image
from engine.pictures.role_format import RoleFormat

_DECODED_CHANNELS = (1, 2, 3, 4)
_WHOLE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """Pixels as the data set of a run stores them.

    Attributes:
      dtype: "uint8", "uint16" or "float32".
      value_range: lowest and highest value, which networks see as -1 and 1.
      channels: of a picture.
    """

    dtype: str
    value_range: tuple[float, float]
    channels: int

    @property
    def has_encoding(self) -> bool:
        """Whether an image file that TensorFlow decodes and encodes (PNG, for one) holds such pixels."""
        return self.dtype in _WHOLE and self.channels in _DECODED_CHANNELS

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes a picture.

        Args:
          encoded: string [], the bytes of a PNG or JPEG file. Grey becomes colour, and opaque, if the
            networks take that; 16 bits become 8, rounded, if the data set has 8.

        Returns:
          float32 [H, W, C] in [-1, 1].

        Raises:
          tf.errors.InvalidArgumentError: at run time, for bytes that are no such picture, or values outside
            the range.
        """
        low, high = self.value_range
        is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
        pixels = tf.cond(is_png, lambda: self._of_png(encoded), lambda: self._of_jpeg(encoded))
        if self.value_range != _WHOLE[self.dtype]:
            values = tf.cast(pixels, tf.float32)
            message = f"the picture has values outside {low:g} to {high:g}, the range of the training"
            with tf.control_dependencies(
                [
                    tf.debugging.assert_greater_equal(values, low, message),
                    tf.debugging.assert_less_equal(values, high, message),
                ]
            ):
                pixels = tf.identity(pixels)
        return imaging.range_to_signed(pixels, low=low, high=high)

    def encode(self, pictures: tf.Tensor) -> tf.Tensor:
        """Encodes pictures as PNG: float32 [N, H, W, C] in [-1, 1] -> string [N]."""
        return tf.stack([tf.io.encode_png(pixels) for pixels in self.to_pixels(pictures)])

    def to_pixels(self, pictures: tf.Tensor) -> tf.Tensor:
        """Converts float32 [..., C] in [-1, 1] to pixels; integers are rounded and clipped."""
        low, high = self.value_range
        return imaging.signed_to_range(pictures, low=low, high=high, dtype=tf.as_dtype(self.dtype))

    def to_signed(self, pixels: tf.Tensor) -> tf.Tensor:
        """The inverse of `to_pixels`, but for what that rounds and clips."""
        low, high = self.value_range
        return imaging.range_to_signed(pixels, low=low, high=high)

    def _of_png(self, encoded: tf.Tensor) -> tf.Tensor:
        if self.dtype == "uint16" or self.channels == 2:
            return self._decoded(encoded, self.dtype)
        is_deep = tf.strings.substr(encoded, 24, 1) == b"\x10"
        return tf.cond(
            is_deep,
            # TensorFlow only drops the lower bits.
            lambda: _rounded(self._decoded(encoded, "uint16")),
            lambda: self._decoded(encoded, "uint8"),
        )

    def _of_jpeg(self, encoded: tf.Tensor) -> tf.Tensor:
        colours = 1 if self.channels < 3 else 3
        pixels = decode_image(encoded, channels=colours)
        if colours < self.channels:  # opaque
            pixels = tf.concat(
                [pixels, tf.fill(tf.shape(pixels[..., :1]), tf.constant(255, tf.uint8))], axis=-1
            )
        # TensorFlow itself multiplies by 256.
        pixels = tf.cast(pixels, self.dtype) * (257 if self.dtype == "uint16" else 1)
        return tf.ensure_shape(pixels, [None, None, self.channels])

    def _decoded(self, encoded: tf.Tensor, dtype: str) -> tf.Tensor:
        pixels = decode_image(encoded, channels=self.channels, dtype=tf.as_dtype(dtype))
        return tf.ensure_shape(pixels, [None, None, self.channels])


def _rounded(deep: tf.Tensor) -> tf.Tensor:
    """Pixels of 16 bits as pixels of 8."""
    return tf.cast(tf.floor(tf.cast(deep, tf.float32) / 257.0 + 0.5), tf.uint8)


def pixel_format(role: RoleFormat) -> PixelFormat:
    """How the pictures of a role are stored; 8 bits if that is not known."""
    stored = role.stored or ImageFormat(channels=role.channels, dtype="uint8", value_range=(0, 255))
    low, high = stored.value_range
    return PixelFormat(dtype=stored.dtype, value_range=(float(low), float(high)), channels=role.channels)
