"""Decoding records and their images, in the graph."""

import tensorflow as tf
import tensorflow_datasets as tfds


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
        with tf.control_dependencies([_check_pixels(encoded, max_pixels)]):
            encoded = tf.identity(encoded)
    return decode_image(encoded, channels=channels or feature.shape[-1], dtype=feature.tf_dtype)


def _check_pixels(encoded: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Fails if an image has too many pixels by its header, before memory is allocated for them."""
    is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"

    def png_size() -> tf.Tensor:
        # Width and height follow the first chunk's name, as big-endian 32-bit integers.
        size = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
        return tf.cast(size, tf.int64)

    def jpeg_size() -> tf.Tensor:
        return tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)

    pixels = tf.reduce_prod(tf.cond(is_png, png_size, jpeg_size))
    limit = tf.constant(max_pixels, tf.int64)
    return tf.debugging.assert_less_equal(pixels, limit, f"the image has more than {max_pixels} pixels")
