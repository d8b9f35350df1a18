"""Conversion between value ranges: stored images, for example uint8 in [0, 255], and [-1, 1] in networks."""

import tensorflow as tf


def to_signed(images_uint8: tf.Tensor) -> tf.Tensor:
    """Maps integers in [0, 255] to [-1, 1]: x / 127.5 - 1.

    Args:
      images_uint8: uint8, any shape.

    Returns:
      float32 of the same shape; 0 gives exactly -1 and 255 exactly 1.

    Raises:
      TypeError: the dtype is not uint8.
    """
    images_uint8 = tf.convert_to_tensor(images_uint8)
    if images_uint8.dtype != tf.uint8:
        raise TypeError(f"to_signed: takes uint8 images in [0, 255], not {images_uint8.dtype.name}")
    return tf.cast(images_uint8, tf.float32) / 127.5 - 1.0


def range_to_signed(images: tf.Tensor, *, low: float, high: float) -> tf.Tensor:
    """Maps [low, high] to [-1, 1]; for 0 and 255 exactly as `to_signed`.

    Args:
      images: any real dtype, any shape.
      low: becomes -1. Values outside the range are not clipped.
      high: becomes 1.

    Returns:
      float32 of the same shape.
    """
    half = (high - low) / 2.0
    return tf.cast(images, tf.float32) / half - (low / half + 1.0)


def signed_to_range(images: tf.Tensor, *, low: float, high: float, dtype: tf.DType) -> tf.Tensor:
    """Maps [-1, 1] to [low, high]; the inverse of `range_to_signed`.

    Args:
      images: floating point in [-1, 1], any shape.
      low: what -1 becomes.
      high: what 1 becomes.
      dtype: of the result. Integers are rounded, halves up, and clipped to the range; floats are neither.

    Returns:
      `dtype` of the same shape; uint8 in [0, 255] exactly as `to_uint8`.
    """
    half = (high - low) / 2.0
    values = (tf.cast(images, tf.float32) + 1.0) * half + low
    if not tf.as_dtype(dtype).is_floating:
        values = tf.clip_by_value(tf.floor(values + 0.5), low, high)
    return tf.cast(values, dtype)


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Maps [-1, 1] to the nearest integer in [0, 255]; the inverse of `to_signed`.

    Halves are rounded up (0.0 gives 128); values outside [-1, 1] are clipped.

    Args:
      images: floating point in [-1, 1], any shape.

    Returns:
      uint8 of the same shape.

    Raises:
      TypeError: the dtype is not a floating-point type.
    """
    images = tf.convert_to_tensor(images)
    if not images.dtype.is_floating:
        raise TypeError(f"to_uint8: takes floats in [-1, 1], not {images.dtype.name}")
    # bfloat16 has 8 significant bits: adding 1 in it would already lose grey levels.
    grey_levels = (tf.cast(images, tf.float32) + 1.0) * 127.5
    return tf.cast(tf.clip_by_value(tf.floor(grey_levels + 0.5), 0.0, 255.0), tf.uint8)
