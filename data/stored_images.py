"""How the images of one feature are stored: as the file's bytes, as PNG, or as a raw array."""

import dataclasses
import hashlib
import typing

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data import pictures
from data.decoding import decode_image
from data.errors import DataError

_DTYPE_RANGES = {"uint8": (0, 255), "uint16": (0, 65535)}
_IMAGE_CHANNELS = (1, 2, 3, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFormat:
    """What all images of one feature are: [H, W, channels] of dtype, values in value_range."""

    channels: int
    dtype: str
    value_range: tuple[float, float]

    @property
    def is_png(self):
        """Whether images are stored as PNG (or JPEG) bytes; raw arrays otherwise."""
        return self.dtype in _DTYPE_RANGES and self.channels in _IMAGE_CHANNELS

    def feature(self):
        """The `tfds` feature; its documentation carries the value range."""
        low, high = self.value_range
        shape, dtype = (None, None, self.channels), np.dtype(self.dtype)
        doc = tfds.features.Documentation(value_range=f"{low!r} to {high!r}")
        if self.is_png:
            return tfds.features.Image(shape=shape, dtype=dtype, doc=doc)
        # Raw: the mantissas of floats hardly get smaller, and inflating them costs more than reading.
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=doc)


class Encoded(typing.NamedTuple):
    """An image as it is stored.

    Attributes:
        value: bytes of an Image feature, or the array of a Tensor feature.
        kept: whether the bytes are the file's own.
        digest: 16 bytes that tell its pixels from all others; with `halves`, 16 of the left half and
            then 16 of the right.
    """

    value: bytes | np.ndarray
    kept: bool
    digest: bytes


def format_of(feature):
    """Gives the `StoredFormat` of a feature, also of one that another program wrote."""
    dtype = np.dtype(feature.np_dtype).name
    value_range = _DTYPE_RANGES.get(dtype)
    if feature.doc.value_range:
        low, high = feature.doc.value_range.split(" to ")
        value_range = (float(low), float(high))
    return StoredFormat(channels=feature.shape[-1], dtype=dtype, value_range=value_range)


def common_format(kinds, *, value_range=None):
    """Gives the `StoredFormat` that takes all images of one feature without loss."""
    channels = max(kind.channels for kind in kinds)
    return StoredFormat(channels=channels, dtype="uint8", value_range=value_range or (0, 255))


def encode(ref, *, stored, video, max_pixels, halves=False):
    """Reads an image and gives it as it is stored: an `Encoded`."""
    kind, pixels, contents = pictures.decode(ref, video=video, max_pixels=max_pixels)
    if kind.channels > stored.channels:
        raise DataError(f"{ref.path}: has {kind.channels} channels, not {stored.channels}.")
    if stored.channels >= 3 > kind.channels:
        pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], axis=-1)
    if pixels.shape[-1] < stored.channels:
        opaque = np.full_like(pixels[..., :1], 255)
        pixels = np.concatenate([pixels, opaque], axis=-1)
    half = pixels.shape[1] // 2
    parts = (pixels[:, :half], pixels[:, half:]) if halves else (pixels,)
    digest = b"".join(map(pixels_digest, parts))
    if contents is not None and _decodes_to(contents, pixels):
        return Encoded(value=contents, kept=True, digest=digest)
    return Encoded(value=encode_pixels(pixels, stored), kept=False, digest=digest)


def encode_pixels(pixels, stored):
    """Gives pixels [H, W, C] as they are stored: PNG bytes, or the array itself."""
    return tf.io.encode_png(pixels).numpy() if stored.is_png else pixels


def encode_png(pixels):
    """Encodes uint8 or uint16 [H, W, 1 to 4] as PNG bytes."""
    return tf.io.encode_png(pixels).numpy()


def pixels_digest(pixels):
    """16 bytes that tell an image's shape, dtype and pixels from all others (BLAKE2b)."""
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype.name} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def _decodes_to(contents, pixels):
    """Whether the training pipeline's decoder makes exactly these pixels of the bytes."""
    try:
        decoded = decode_image(contents, channels=pixels.shape[-1], dtype=pixels.dtype).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    return np.array_equal(decoded, pixels)
