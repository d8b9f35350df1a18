"""From a stored record to images, inside the graph."""

import tensorflow as tf
import tensorflow_datasets as tfds


def decode_image(encoded, *, channels, dtype=tf.uint8):
    """Decodes JPEG or PNG bytes: string [] -> uint8 or uint16 [H, W, channels].

    JPEG is read as uint8 of 1 or 3 channels only; 8-bit PNG asked for as uint16 gives 257 x.
    The slow exact DCT gives Pillow's pixels; TensorFlow's default is off by up to 20 levels.

    Args:
        encoded: string [].
        channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha; 2 must be what is stored.
        dtype: tf.uint8 or tf.uint16.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, bytes that cannot be decoded so.
    """
    if tf.as_dtype(dtype) == tf.uint8 and channels != 2:
        # In spite of its name the operation reads PNG too; decode_image has no choice of the DCT.
        return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")
    # The operation knows two channels only as those of the file.
    image = tf.io.decode_png(encoded, channels=0 if channels == 2 else channels, dtype=dtype)
    return tf.ensure_shape(image, [None, None, channels])


def parse_record(features, record):
    """Parses a record and leaves its encoded images encoded.

    Args:
        features: the `tfds.features.FeaturesDict` it was written with.
        record: string [].

    Returns:
        A dict of tensors; an Image feature is a string [], a Tensor feature is decoded.
    """
    encoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return features.deserialize_example(record, decoders=encoded)


def image_of(parsed, name, feature, *, channels=None, max_pixels=None):
    """Gives an image of a parsed record.

    Args:
        parsed: what `parse_record` gives.
        name: of the image in it.
        feature: its `tfds` feature, an Image or a Tensor.
        channels: to decode an Image feature with; those of the feature if None.
        max_pixels: largest height x width of an encoded image; any if None.

    Returns:
        [H, W, C] of the stored dtype, C static.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, the image cannot be decoded or is too large.
    """
    if not isinstance(feature, tfds.features.Image):
        return tf.ensure_shape(parsed[name], feature.shape)
    encoded = parsed[name]
    if max_pixels is not None:
        with tf.control_dependencies([_check_pixels(encoded, max_pixels)]):
            encoded = tf.identity(encoded)
    return decode_image(encoded, channels=channels or feature.shape[-1], dtype=feature.tf_dtype)


def _check_pixels(encoded, max_pixels):
    """Fails for an image whose header tells of too many pixels, before memory is taken for them."""
    is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"

    def png_size():
        # Two big-endian 32-bit numbers, width and height, follow the first chunk's name.
        size = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
        return tf.cast(size, tf.int64)

    def jpeg_size():
        return tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)

    pixels = tf.reduce_prod(tf.cond(is_png, png_size, jpeg_size))
    limit = tf.constant(max_pixels, tf.int64)
    return tf.debugging.assert_less_equal(pixels, limit, f"the image has more than {max_pixels} pixels")
