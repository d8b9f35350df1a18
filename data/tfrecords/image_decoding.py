"""Decoding records and their images, in the graph."""

import typing

import tensorflow as tf
import tensorflow_datasets as tfds

_REDUCTIONS = (2, 4, 8)
"""How many times smaller a JPEG can be decoded."""


class ReducedImage(typing.NamedTuple):
    """An image that may have been decoded at a reduced scale.

    Attributes:
      pixels: [h, w, C].
      extent: float64 [2], (height, width) of the stored image in these pixels: h and w, unless the last row
        or column stands for a part of one.
      is_reduced: bool [].
    """

    pixels: tf.Tensor
    extent: tf.Tensor
    is_reduced: tf.Tensor

    @classmethod
    def whole(cls, pixels: tf.Tensor) -> "ReducedImage":
        """An image as it is stored."""
        return cls(pixels, tf.cast(tf.shape(pixels)[:2], tf.float64), tf.constant(False))  # [2]


def decode_image(encoded: tf.Tensor, *, channels: int, dtype: tf.DType = tf.uint8) -> tf.Tensor:
    """Decodes JPEG or PNG bytes: string [] -> uint8 or uint16 [H, W, channels].

    JPEG decodes to uint8 of 1 or 3 channels only. Decoding an 8-bit PNG as uint16 multiplies by 257.
    The slow, accurate DCT returns exactly Pillow's pixels. How far TensorFlow's default, fast DCT is off
    depends on the image: measured are up to 17 grey levels for smooth images and up to 91 for noise.

    Args:
      encoded: string [].
      channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha; 2 only if the file has 2.
      dtype: tf.uint8 or tf.uint16.

    Raises:
      tf.errors.InvalidArgumentError: at run time, when the bytes cannot be decoded this way.
    """
    if tf.as_dtype(dtype) == tf.uint8 and channels != 2:
        # Despite its name, the operation reads PNG too; decode_image has no option for the DCT.
        return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")
    # The operation decodes two channels only if asked for the channels of the file.
    image = tf.io.decode_png(encoded, channels=0 if channels == 2 else channels, dtype=dtype)
    return tf.ensure_shape(image, [None, None, channels])


def parse_record(features: tfds.features.FeaturesDict, record: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses a record, without decoding its images.

    Args:
      features: those with which the record was written.
      record: string [].

    Returns:
      Name of a feature -> tensor; an Image feature is a string [], a Tensor feature is decoded.
    """
    encoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return features.deserialize_example(record, decoders=encoded)


def image_of(
    parsed: dict[str, tf.Tensor],
    name: str,
    feature: tfds.features.FeatureConnector,
    *,
    channels: int | None = None,
    max_pixels: int | None = None,
) -> tf.Tensor:
    """Decodes an image of a parsed record.

    Args:
      parsed: what `parse_record` returns.
      name: of the image in it.
      feature: its `tfds` feature, an Image or a Tensor.
      channels: of the result, for an Image feature; None for those of the feature.
      max_pixels: largest height x width of an encoded image; None for no limit.

    Returns:
      [H, W, C] of the stored dtype, C static.

    Raises:
      tf.errors.InvalidArgumentError: at run time, when the image cannot be decoded or is too large.
    """
    if not isinstance(feature, tfds.features.Image):
        return tf.ensure_shape(parsed[name], feature.shape)
    encoded = parsed[name]
    if max_pixels is not None:
        with tf.control_dependencies([_check_pixels(stored_size(encoded), max_pixels)]):
            encoded = tf.identity(encoded)
    return decode_image(encoded, channels=channels or feature.shape[-1], dtype=feature.tf_dtype)


def reduced_image_of(
    parsed: dict[str, tf.Tensor],
    name: str,
    feature: tfds.features.FeatureConnector,
    *,
    channels: int,
    max_pixels: int,
    least_size: tuple[int, int],
    halves: bool = False,
) -> ReducedImage:
    """Decodes an image as `image_of`, but a JPEG smaller, if it stays at least as large as is needed.

    A JPEG decoder can leave out the highest frequencies of each block: the image comes at 1/2, 1/4 or 1/8 of
    its size, and sooner. Everything of the file is read, so damage fails as it does in `image_of`.

    Args:
      parsed: as in `image_of`.
      name: as in `image_of`.
      feature: as in `image_of`.
      channels: as in `image_of`.
      max_pixels: as in `image_of`; of the stored image.
      least_size: (height, width) that an image, or each half of one, keeps at least.
      halves: whether the left and the right half are images of their own, which no reduced pixel may mix.

    Returns:
      The image, of the stored dtype.

    Raises:
      tf.errors.InvalidArgumentError: as in `image_of`.
    """
    if not isinstance(feature, tfds.features.Image) or feature.tf_dtype != tf.uint8 or channels not in (1, 3):
        return ReducedImage.whole(image_of(parsed, name, feature, channels=channels, max_pixels=max_pixels))
    encoded = parsed[name]
    size = stored_size(encoded)
    with tf.control_dependencies([_check_pixels(size, max_pixels)]):
        encoded = tf.identity(encoded)
    images = 2 if halves else 1
    least = tf.constant([least_size[0], images * least_size[1]], tf.int64)
    fits = [
        tf.reduce_all(size >= scale * least) & (size[1] % (scale * images) == 0 if halves else True)
        for scale in _REDUCTIONS
    ]
    chosen = tf.where(is_png(encoded), 0, tf.reduce_sum(tf.cast(tf.stack(fits), tf.int32)))

    def decoded(reduction: int) -> tf.Tensor:
        return tf.io.decode_jpeg(encoded, channels=channels, ratio=reduction, dct_method="INTEGER_ACCURATE")

    pixels = tf.switch_case(chosen, [lambda r=r: decoded(r) for r in (1, *_REDUCTIONS)])
    scale = tf.gather(tf.constant((1, *_REDUCTIONS), tf.float64), chosen)
    return ReducedImage(pixels, tf.cast(size, tf.float64) / scale, chosen > 0)


def is_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether the bytes of an image begin as those of a PNG: bool []."""
    return tf.strings.substr(encoded, 0, 4) == b"\x89PNG"


def stored_size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (height, width) of a JPEG or PNG by its header: int64 [2].

    Raises:
      tf.errors.InvalidArgumentError: at run time, when the bytes are neither.
    """

    def png_size() -> tf.Tensor:
        # Width and height follow the first chunk's name, as big-endian 32-bit integers.
        size = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
        return tf.cast(size[::-1], tf.int64)

    def jpeg_size() -> tf.Tensor:
        return tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)

    return tf.ensure_shape(tf.cond(is_png(encoded), png_size, jpeg_size), [2])


def _check_pixels(size: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Fails if an image of that size has too many pixels, before memory is allocated for them."""
    limit = tf.constant(max_pixels, tf.int64)
    return tf.debugging.assert_less_equal(
        tf.reduce_prod(size), limit, f"the image has more than {max_pixels} pixels"
    )
