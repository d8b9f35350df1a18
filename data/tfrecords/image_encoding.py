"""Encoding of the images of one feature: as the bytes of their files, as PNG, or as raw arrays."""

import dataclasses
import hashlib
import math
import re
import typing
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import ImageInfo, ImageRef
from data.formats.raw_video import VideoFormat
from data.imaging.value_statistics import ImageValues, values_of
from data.tfrecords import label_classes
from data.tfrecords.image_decoding import decode_image

_WHOLE_RANGES: dict[str, tuple[float, float]] = {"uint8": (0, 255), "uint16": (0, 65535)}
_DECODABLE_PIXELS = 2**29  # TensorFlow decodes PNGs of fewer only
_RANGE_TEXT = re.compile(r"(\S+) to (\S+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFormat:
    """The format of all images of one feature.

    Attributes:
      channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha; or any number for data.
      dtype: "uint8", "uint16" or "float32".
      value_range: lowest and highest possible value.

    Raises:
      DataError: the value range is empty, or not within that of the dtype.
    """

    channels: int
    dtype: str
    value_range: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.value_range
        lowest, highest = _WHOLE_RANGES.get(self.dtype, (-math.inf, math.inf))
        if not (lowest <= low < high <= highest and math.isfinite(high - low)):
            raise DataError(
                f"value range {low:g} to {high:g}: must be two numbers that {self.dtype} images "
                "can hold, the lower one first"
            )

    @property
    def is_encoded(self) -> bool:
        """Whether images are PNG or JPEG bytes in an Image feature; otherwise arrays in a Tensor feature."""
        return self.dtype in _WHOLE_RANGES and self.channels <= 4

    def feature(self) -> tfds.features.FeatureConnector:
        """Returns the `tfds` feature; its documentation, in features.json, states the value range."""
        low, high = self.value_range
        doc = tfds.features.Documentation(value_range=f"{low!r} to {high!r}")
        shape, dtype = (None, None, self.channels), np.dtype(self.dtype)
        if self.is_encoded:
            return tfds.features.Image(shape=shape, dtype=dtype, doc=doc)
        # Not compressed: float mantissas hardly shrink, and decompressing a megabyte takes milliseconds.
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=doc)


class Encoded(typing.NamedTuple):
    """An image as it is stored.

    Attributes:
      value: bytes for an Image feature, [H, W, C] for a Tensor feature.
      kept: whether the bytes are those of the file.
      digest: `pixels_digest` of the stored pixels; with `halves`, of the left half and then of the right.
      classes: of each part that was asked for, its different pixel values; None if they are too many, or
        blurred by JPEG.
      values: of the pixels.
    """

    value: bytes | np.ndarray
    kept: bool
    digest: bytes
    values: ImageValues
    classes: tuple[label_classes.Pixels | None, ...] = ()


def format_of(feature: tfds.features.FeatureConnector) -> StoredFormat:
    """Returns the `StoredFormat` of an Image or Tensor feature, also of a public data set.

    If its documentation states no value range, integers have the whole range of the dtype.

    Raises:
      DataError: its number of channels or its value range is not known; the caller names the data set.
    """
    shape, dtype = feature.shape, np.dtype(feature.np_dtype).name
    is_image = isinstance(feature, tfds.features.Image)
    if len(shape) != 3 or shape[-1] is None or dtype not in (*_WHOLE_RANGES, "float32"):
        raise DataError(
            f"a feature of shape {shape} and dtype {dtype} is not an image with a known number of channels"
        )
    if is_image and dtype == "float32":
        raise DataError("float32 images that TFDS stored as the bytes of a PNG are not supported")
    value_range = _WHOLE_RANGES.get(dtype)
    if match := _RANGE_TEXT.fullmatch(feature.doc.value_range or ""):
        low, high = map(float, match.groups())
        value_range = (low, high) if dtype == "float32" else (int(low), int(high))
    if value_range is None:
        raise DataError("float32 images without a stored value range; prepare the data set again")
    return StoredFormat(channels=shape[-1], dtype=dtype, value_range=value_range)


def common_format(
    infos: Iterable[ImageInfo], *, value_range: tuple[float, float] | None = None
) -> StoredFormat:
    """Returns a format that stores all images of one feature without loss.

    It has colour if any image has, and alpha if any has: grey is repeated, and images without alpha become
    opaque. It is uint16 if any image is: 8-bit values are multiplied by 257, so white stays white.

    Args:
      infos: what each image is.
      value_range: lowest and highest possible value, if the files do not state them (float32) or use only a
        part of their range (12 bits in 16).

    Raises:
      DataError: no format stores them all; the caller names the files.
    """
    distinct = {(info.channels, info.alpha, info.dtype, info.value_range) for info in infos}
    if not distinct:
        raise DataError("no images; add some")
    dtypes = {dtype for _, _, dtype, _ in distinct}
    ranges = {found for *_, found in distinct if found is not None}
    if "float32" in dtypes and len(dtypes) > 1:
        raise DataError(
            f"images of {' and '.join(sorted(dtypes))} are mixed, and how integers compare with floats is "
            "not known; convert them to one of these"
        )
    # The whole ranges of 8 and 16 bits mean the same colours. With 10 bits, 1023 is white.
    if ranges - set(_WHOLE_RANGES.values()) and len(ranges) > 1:
        named = " and ".join(f"{low} to {high}" for low, high in sorted(ranges))
        raise DataError(f"images with values {named} are mixed; convert them to one range")
    if value_range is not None and len(dtypes) > 1:
        raise DataError("one value range is given for images of 8 and of 16 bits; convert them to one depth")
    if value_range is None and "float32" not in dtypes:
        value_range = max(ranges, key=lambda found: found[1])
    if value_range is None:
        raise DataError("float32 images need their value range; give the lowest and highest value")
    return StoredFormat(
        channels=_common_channels({(channels, alpha) for channels, alpha, *_ in distinct}),
        dtype="uint16" if "uint16" in dtypes else min(dtypes),
        value_range=(value_range[0], value_range[1]),
    )


def _common_channels(found: set[tuple[int, bool]]) -> int:
    """The number of channels that can store all of {(channels, whether the last is alpha)}."""
    if len(found) == 1:
        return next(iter(found))[0]
    if data := [channels for channels, alpha in found if not _is_picture(channels, alpha)]:
        counts = sorted({channels for channels, _ in found})
        raise DataError(
            f"images of {', '.join(map(str, counts))} channels are mixed, and {data[0]} channels are "
            "neither grey nor colour; give all images the same channels"
        )
    colour = max(channels - alpha for channels, alpha in found)
    return colour + any(alpha for _, alpha in found)


def _is_picture(channels: int, alpha: bool) -> bool:
    """Whether an image is grey or colour, with or without alpha."""
    return channels - alpha in (1, 3)


def encode(
    ref: ImageRef,
    *,
    stored: StoredFormat,
    video: VideoFormat,
    max_pixels: int,
    halves: bool = False,
    labels: Sequence[int] = (),
) -> Encoded:
    """Reads and decodes an image, and encodes it as it is stored.

    The file's own bytes are stored if `data.tfrecords.image_decoding` decodes them to exactly the pixels that
    a viewer shows (upright). Otherwise these pixels are stored, as a PNG or, for a Tensor feature, an array.
    Can be called in threads.

    Args:
      ref: the image.
      stored: the format of the feature; must suit this image (`common_format`).
      video: size and format of raw videos.
      max_pixels: larger images raise a DataError.
      halves: compute a digest of each half of the width.
      labels: numbers of the parts (halves, or 0 for the whole) whose values are classes.

    Raises:
      DataError: the file cannot be read, is damaged, or does not suit the format.
    """
    info, pixels, contents = image_reader.decode(ref, video=video, max_pixels=max_pixels)
    try:
        if labels and info.dtype != stored.dtype:
            raise DataError(
                f"is {info.dtype} among {stored.dtype} labels, so its classes would change; convert it"
            )
        pixels = convert_pixels(pixels, info, stored)
        check_values(pixels, stored)
        half = pixels.shape[1] // 2
        parts = (pixels[:, :half], pixels[:, half:]) if halves else (pixels,)
        classes = tuple(label_classes.classes_in(parts[number]) for number in labels)
    except DataError as error:
        raise DataError(f"{ref.path}: {error}") from error
    if stored.is_encoded and info.height * info.width >= _DECODABLE_PIXELS:
        raise DataError(f"{ref.path}: is {info.width}x{info.height}, too large for TensorFlow; split it")
    if "jpeg" in contents:
        classes = (None,) * len(classes)
    digest = b"".join(map(pixels_digest, parts))
    values = values_of(pixels)
    for encoding, file_bytes in contents.items():
        if stored.is_encoded and _decodes_to(file_bytes, encoding, pixels):
            return Encoded(value=file_bytes, kept=True, digest=digest, values=values, classes=classes)
    return Encoded(
        value=encode_pixels(pixels, stored), kept=False, digest=digest, values=values, classes=classes
    )


def encode_pixels(pixels: np.ndarray, stored: StoredFormat) -> bytes | np.ndarray:
    """Encodes pixels [H, W, C] of the stored dtype and channels, without loss.

    Returns:
      PNG bytes for an Image feature, the array itself for a Tensor feature.

    Raises:
      ValueError: the pixels have another dtype or number of channels.
    """
    if pixels.dtype != stored.dtype or pixels.shape[-1] != stored.channels:
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape} are not of {stored}")
    return encode_png(pixels) if stored.is_encoded else pixels


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 or uint16 [H, W, 1 to 4] as PNG bytes."""
    return tf.io.encode_png(pixels).numpy()


def pixels_digest(pixels: np.ndarray) -> bytes:
    """Returns a BLAKE2b digest of an image's shape, dtype and pixels: 16 bytes."""
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype.name} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def convert_pixels(pixels: np.ndarray, info: ImageInfo, stored: StoredFormat) -> np.ndarray:
    """Converts pixels [H, W, C] to the stored dtype and channels.

    Grey becomes colour by repeating it, and images without alpha become opaque. 8-bit values are
    multiplied by 257 to become 16-bit values.

    Args:
      pixels: as `image_reader.decode` returns them.
      info: likewise.
      stored: the format that they get.

    Raises:
      DataError: something would be lost; the caller names the image.
    """
    if info.dtype != stored.dtype:
        if (info.dtype, stored.dtype, stored.value_range) != ("uint8", "uint16", (0, 65535)):
            raise DataError(f"{info.dtype} cannot become {stored.dtype} of {stored.value_range} without loss")
        pixels = pixels.astype(np.uint16) * 257
    if info.channels == stored.channels:
        return pixels
    colours, wanted = info.channels - info.alpha, 3 if stored.channels > 2 else 1
    if not _is_picture(info.channels, info.alpha) or colours > wanted or stored.channels > 4:
        raise DataError(f"{info.channels} channels cannot become {stored.channels} without loss")
    if info.alpha and stored.channels in (1, 3):
        raise DataError(f"has transparent parts, which {stored.channels} channels cannot store; flatten it")
    image, alpha = pixels[..., :colours], pixels[..., colours:]
    if colours < wanted:
        image = image.repeat(3, axis=-1)
    if stored.channels > wanted and not info.alpha:
        opaque = 1.0 if info.dtype == "float32" else np.iinfo(pixels.dtype).max
        alpha = np.full_like(pixels[..., :1], opaque)
    return np.concatenate([image, alpha], axis=-1)


def check_values(pixels: np.ndarray, stored: StoredFormat) -> None:
    """Raises DataError for values outside the value range, and for NaN; the caller names the image."""
    low, high = stored.value_range
    if stored.value_range == _WHOLE_RANGES.get(stored.dtype):
        return
    if not np.isfinite(pixels).all():
        raise DataError("has values that are not finite (NaN or infinity); mend or remove it")
    if pixels.min() < low or pixels.max() > high:
        raise DataError(
            f"has values from {pixels.min():g} to {pixels.max():g}, outside the value range {low:g} to "
            f"{high:g}; widen the range, or mend or remove the image"
        )


def _decodes_to(contents: bytes, encoding: str, pixels: np.ndarray) -> bool:
    """Whether the training pipeline decodes the bytes to exactly these pixels."""
    channels, dtype = pixels.shape[-1], pixels.dtype
    if encoding == "jpeg" and (dtype != np.uint8 or channels not in (1, 3)):
        return False
    try:
        decoded = decode_image(contents, channels=channels, dtype=dtype).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    return np.array_equal(decoded, pixels)
