"""From a stored record to uint8 images, inside the graph."""

import tensorflow as tf
import tensorflow_datasets as tfds


def decode_image(encoded, *, channels):
    """Decodes JPEG or PNG bytes: string [] -> uint8 [H, W, channels].

    The slow exact DCT gives Pillow's pixels; TensorFlow's default is off by up to 20 levels.
    """
    # In spite of its name the operation reads PNG too; decode_image has no choice of the DCT.
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")


def parse_record(features, record):
    """Parses a record and leaves its images encoded.

    Args:
        features: the `tfds.features.FeaturesDict` it was written with.
        record: string [].

    Returns:
        A dict of tensors; an image feature is a string [].
    """
    encoded = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return features.deserialize_example(record, decoders=encoded)
