"""How the images of one feature are stored: as the bytes of their files, as PNG, or as raw arrays."""

import dataclasses
import hashlib
import math
import re
import typing

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data.errors import DataError
from data.formats import image_reader
from data.tfrecords.image_decoding import decode_image

_WHOLE_RANGES = {"uint8": (0, 255), "uint16": (0, 65535)}
_DECODABLE_PIXELS = 2**29  # of a PNG: TensorFlow decodes fewer
_RANGE_TEXT = re.compile(r"(\S+) to (\S+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFormat:
    """What all images of one feature are.

    Attributes:
        channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha, or any number of data.
        dtype: "uint8", "uint16" or "float32".
        value_range: lowest and highest value there can be.

    Raises:
        DataError: the value range is none, or the dtype does not hold it.
    """

    channels: int
    dtype: str
    value_range: tuple[float, float]

    def __post_init__(self):
        low, high = self.value_range
        lowest, highest = _WHOLE_RANGES.get(self.dtype, (-math.inf, math.inf))
        if not (lowest <= low < high <= highest and math.isfinite(high - low)):
            raise DataError(
                f"value range {low:g} to {high:g}: must be two numbers that {self.dtype} images "
                "can hold, the lower one first."
            )

    @property
    def is_encoded(self):
        """Whether images are PNG or JPEG bytes in an Image feature; if not, arrays in a Tensor feature."""
        return self.dtype in _WHOLE_RANGES and self.channels <= 4

    def feature(self):
        """Gives the `tfds` feature; its documentation, kept in features.json, carries the value range."""
        low, high = self.value_range
        doc = tfds.features.Documentation(value_range=f"{low!r} to {high!r}")
        shape, dtype = (None, None, self.channels), np.dtype(self.dtype)
        if self.is_encoded:
            return tfds.features.Image(shape=shape, dtype=dtype, doc=doc)
        # Not deflated: float mantissas hardly get smaller, and a megabyte takes milliseconds to inflate.
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=doc)


class Encoded(typing.NamedTuple):
    """An image as it is stored.

    Attributes:
        value: bytes for an Image feature, [H, W, C] for a Tensor feature.
        kept: whether the bytes are the file's own.
        digest: `pixels_digest` of the pixels stored; with `halves`, of the left half and then of the right.
    """

    value: bytes | np.ndarray
    kept: bool
    digest: bytes


def format_of(feature):
    """Gives the `StoredFormat` of an Image or Tensor feature, also of a public data set.

    Without a value range of ours in its documentation, integers have the whole range of the dtype.

    Raises:
        DataError: its number of channels or its value range is not known (the caller names the data set).
    """
    shape, dtype = feature.shape, np.dtype(feature.np_dtype).name
    is_image = isinstance(feature, tfds.features.Image)
    if len(shape) != 3 or shape[-1] is None or dtype not in (*_WHOLE_RANGES, "float32"):
        raise DataError(f"a feature of shape {shape} and dtype {dtype} is no image of known channels.")
    if is_image and dtype == "float32":
        raise DataError("float32 images that TFDS stored in the bytes of a PNG are not read.")
    value_range = _WHOLE_RANGES.get(dtype)
    if match := _RANGE_TEXT.fullmatch(feature.doc.value_range or ""):
        low, high = map(float, match.groups())
        value_range = (low, high) if dtype == "float32" else (int(low), int(high))
    if value_range is None:
        raise DataError("float32 images whose value range is not written down; prepare the data set anew.")
    return StoredFormat(channels=shape[-1], dtype=dtype, value_range=value_range)


def common_format(kinds, *, value_range=None):
    """Gives the format that takes all images of one feature and loses nothing.

    Colour if any image has it, alpha if any has it: grey is repeated, what has no alpha gets an opaque one.
    uint16 if any is: 8-bit values times 257, so that white stays white.

    Args:
        kinds: `ImageInfo` of each image.
        value_range: lowest and highest value there can be where the files do not tell (float32), or
            where they use a part of their range (12 bits in 16).

    Returns:
        `StoredFormat`.

    Raises:
        DataError: no format takes them all; names no file (the caller does).
    """
    distinct = {(kind.channels, kind.alpha, kind.dtype, kind.value_range) for kind in kinds}
    if not distinct:
        raise DataError("no images; add some.")
    dtypes, ranges = {dtype for _, _, dtype, _ in distinct}, {found for *_, found in distinct}
    if "float32" in dtypes and len(dtypes) > 1:
        raise DataError(
            f"images of {' and '.join(sorted(dtypes))} stand side by side, and how integers compare with "
            "floats is not known; convert them to one of these."
        )
    # Of 8 and 16 bits each means the same colours by its whole range; of 10 bits 1023 is white.
    if ranges - set(_WHOLE_RANGES.values()) and len(ranges) > 1:
        named = " and ".join(f"{low} to {high}" for low, high in sorted(ranges))
        raise DataError(f"images with values {named} stand side by side; convert them to one range.")
    if value_range is not None and len(dtypes) > 1:
        raise DataError("one value range is given for images of 8 and of 16 bits; convert them to one depth.")
    if value_range is None:
        value_range = None if "float32" in dtypes else max(ranges, key=lambda found: found[1])
    if value_range is None:
        raise DataError("float32 images need their value range; give the lowest and highest value.")
    return StoredFormat(
        channels=_common_channels({(channels, alpha) for channels, alpha, *_ in distinct}),
        dtype="uint16" if "uint16" in dtypes else min(dtypes),
        value_range=tuple(value_range),
    )


def _common_channels(found):
    """The number of channels that takes all of {(channels, whether the last is alpha)}."""
    if len(found) == 1:
        return next(iter(found))[0]
    if data := [channels for channels, alpha in found if not _is_picture(channels, alpha)]:
        counts = sorted({channels for channels, _ in found})
        raise DataError(
            f"images of {', '.join(map(str, counts))} channels stand side by side, and {data[0]} channels "
            "are neither grey nor colour; give all images the same channels."
        )
    colour = max(channels - alpha for channels, alpha in found)
    return colour + any(alpha for _, alpha in found)


def _is_picture(channels, alpha):
    """Whether channels are grey or colour, with transparency or without."""
    return channels - alpha in (1, 3)


def encode(ref, *, stored, video, max_pixels, halves=False):
    """Reads an image, decoding it completely, and gives it as it is stored.

    The file's own bytes are kept if `data.tfrecords.image_decoding` makes of them exactly the pixels that
    are meant (those a
    viewer shows, upright); otherwise it becomes a PNG of these pixels or, for a Tensor feature, an array.
    May be called in threads.

    Args:
        ref: an `ImageRef`.
        stored: the `StoredFormat` of the feature, one that takes this image (`common_format`).
        video, max_pixels: as of `pictures.read_info`.
        halves: give a digest of each half of the width.

    Returns:
        `Encoded`.

    Raises:
        DataError: the file cannot be read, is damaged, or does not fit the format.
    """
    kind, pixels, contents = image_reader.decode(ref, video=video, max_pixels=max_pixels)
    try:
        pixels = _converted(pixels, kind, stored)
        _check_values(pixels, stored)
    except DataError as error:
        raise DataError(f"{ref.path}: {error}") from error
    if stored.is_encoded and kind.height * kind.width >= _DECODABLE_PIXELS:
        raise DataError(f"{ref.path}: is {kind.width}x{kind.height}, too large for TensorFlow; divide it.")
    half = pixels.shape[1] // 2
    parts = (pixels[:, :half], pixels[:, half:]) if halves else (pixels,)
    digest = b"".join(map(pixels_digest, parts))
    for encoding, own in contents.items():
        if stored.is_encoded and _decodes_to(own, encoding, pixels):
            return Encoded(value=own, kept=True, digest=digest)
    return Encoded(value=encode_pixels(pixels, stored), kept=False, digest=digest)


def encode_pixels(pixels, stored):
    """Gives pixels [H, W, C] of the stored dtype and channels as they are stored, without loss.

    Returns:
        PNG bytes for an Image feature, the array itself for a Tensor feature.

    Raises:
        ValueError: they are not of that dtype and number of channels.
    """
    if pixels.dtype != stored.dtype or pixels.shape[-1] != stored.channels:
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape} are not {stored}.")
    return encode_png(pixels) if stored.is_encoded else pixels


def encode_png(pixels):
    """Encodes uint8 or uint16 [H, W, 1 to 4] as PNG bytes."""
    return tf.io.encode_png(pixels).numpy()


def pixels_digest(pixels):
    """16 bytes that tell an image's shape, dtype and pixels from all others (BLAKE2b)."""
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype.name} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _converted(pixels, kind, stored):
    """The pixels in a dtype and number of channels that hold them all; a DataError where none is lost."""
    if kind.dtype != stored.dtype:
        if (kind.dtype, stored.dtype, stored.value_range) != ("uint8", "uint16", (0, 65535)):
            raise DataError(
                f"{kind.dtype} does not become {stored.dtype} of {stored.value_range} without loss."
            )
        pixels = pixels.astype(np.uint16) * 257
    if kind.channels == stored.channels:
        return pixels
    colours, wanted = kind.channels - kind.alpha, 3 if stored.channels > 2 else 1
    if not _is_picture(kind.channels, kind.alpha) or colours > wanted or stored.channels > 4:
        raise DataError(f"{kind.channels} channels do not become {stored.channels} without loss.")
    if kind.alpha and stored.channels in (1, 3):
        raise DataError(f"has transparent parts, which {stored.channels} channels do not hold; flatten it.")
    image, alpha = pixels[..., :colours], pixels[..., colours:]
    if colours < wanted:
        image = image.repeat(3, axis=-1)
    if stored.channels > wanted and not kind.alpha:
        opaque = 1.0 if kind.dtype == "float32" else np.iinfo(pixels.dtype).max
        alpha = np.full_like(pixels[..., :1], opaque)
    return np.concatenate([image, alpha], axis=-1)


def _check_values(pixels, stored):
    """Refuses values outside the value range, NaN among them."""
    low, high = stored.value_range
    if stored.value_range == _WHOLE_RANGES.get(stored.dtype):
        return
    if not np.isfinite(pixels).all():
        raise DataError("holds values that are not finite (NaN or infinity); mend or remove it.")
    if pixels.min() < low or pixels.max() > high:
        raise DataError(
            f"holds values from {pixels.min():g} to {pixels.max():g}, outside the value range {low:g} to "
            f"{high:g}; widen the range, or mend or remove the image."
        )


def _decodes_to(contents, encoding, pixels):
    """Whether the training pipeline's decoder makes exactly these pixels of the bytes."""
    channels, dtype = pixels.shape[-1], pixels.dtype
    if encoding == "jpeg" and (dtype != np.uint8 or channels not in (1, 3)):
        return False
    try:
        decoded = decode_image(contents, channels=channels, dtype=dtype).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    return np.array_equal(decoded, pixels)
