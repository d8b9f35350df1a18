"""The value range of images: that of their integer dtype, or one that the caller states.

Whoever measures images must know their range. Floats in [0, 1] that pass for grey levels in [0, 255] would
give an MSE far below the MAE, and a PSNR 48 dB too high, without an error. So floats need a stated range.
"""

import tensorflow as tf

ValueRange = tuple[float, float]
"""Lowest and highest possible value of an image."""

DTYPE_RANGES: dict[str, ValueRange] = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
"""Dtypes that state their own range. Others, such as int32 or float32, do not: they hold any range."""


def range_of(dtype: tf.DType, value_range: ValueRange | None, *, what: str) -> ValueRange:
    """Returns the range of images.

    Args:
      dtype: of the images.
      value_range: a stated range, for example (0, 4095) for 12 bits in uint16; None for that of the dtype.
      what: takes the images, for error messages.

    Returns:
      Lowest and highest possible value.

    Raises:
      TypeError: no range is stated, and the dtype has none of its own.
      ValueError: the highest value is not above the lowest.
    """
    name = tf.as_dtype(dtype).name
    if value_range is None:
        if name not in DTYPE_RANGES:
            raise TypeError(
                f"{what}: the range of {name} images is unknown; give value_range=(lowest, highest), such as "
                "(0.0, 1.0), or uint8 or uint16 images"
            )
        return DTYPE_RANGES[name]
    low, high = float(value_range[0]), float(value_range[1])
    if not low < high:
        raise ValueError(f"{what}: value_range = {value_range}: must be (lowest, highest); correct it")
    return low, high


def pair_in_float64(
    images: tf.Tensor, references: tf.Tensor, value_range: ValueRange | None, *, what: str = "image metrics"
) -> tuple[tf.Tensor, tf.Tensor, ValueRange]:
    """Checks two batches of images that are to be compared, and converts them to float64.

    Args:
      images: [B, H, W, C]. Values outside the range are allowed: a network may overshoot.
      references: of the same dtype and shape. Values far outside the range show that the range is wrong.
      value_range: see `range_of`.
      what: takes the images, for error messages.

    Returns:
      Both as float64, unscaled, and their range.

    Raises:
      TypeError: the dtypes differ, or no range is stated and the dtype has none of its own.
      ValueError: the shapes differ or are not [B, H, W, C], or a reference lies outside the range by more
        than half of it or is not finite. If that is only known at run time: `tf.errors.InvalidArgumentError`.
    """
    images, references = tf.convert_to_tensor(images), tf.convert_to_tensor(references)
    if images.dtype != references.dtype:
        raise TypeError(
            f"{what}: {images.dtype.name} and {references.dtype.name} images cannot be compared; convert one "
            "to the dtype and range of the other"
        )
    low, high = range_of(images.dtype, value_range, what=what)
    for tensor in (images, references):
        if tensor.shape.rank != 4:
            raise ValueError(f"{what}: take shapes [B, H, W, C], not {tensor.shape}; add the missing axes")
    if not images.shape.is_compatible_with(references.shape):
        raise ValueError(
            f"{what}: take two images of one shape, not {images.shape}, {references.shape}; resize one"
        )
    checks = []
    if not (images.shape.is_fully_defined() and references.shape.is_fully_defined()):
        # Shapes unknown during tracing are compared at run time: broadcasting would hide a difference.
        checks.append(tf.debugging.assert_equal(tf.shape(images), tf.shape(references)))
    x, y = tf.cast(images, tf.float64), tf.cast(references, tf.float64)
    if value_range is not None:
        checks.append(_check_inside(y, low, high, what=what))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(x), tf.identity(y), (low, high)


def to_signed_by_range(images: tf.Tensor, value_range: ValueRange | None, *, what: str) -> tf.Tensor:
    """Maps images from their range to [-1, 1].

    Args:
      images: [B, H, W, C]; as the references of `pair_in_float64`, only further outside the range.
      value_range: see `range_of`.
      what: takes the images, for error messages.

    Returns:
      float32 of the same shape; 0 and 255 of uint8 give exactly -1 and 1. Values outside are clipped.

    Raises:
      TypeError: no range is stated, and the dtype has none of its own.
      ValueError: the shape is not [B, H, W, C].
    """
    images = tf.convert_to_tensor(images)
    low, high = range_of(images.dtype, value_range, what=what)
    if images.shape.rank != 4:
        raise ValueError(f"{what}: takes shapes [B, H, W, C], not {images.shape}; add the missing axes")
    half = (high - low) / 2
    # In float64: 65535 levels and their offset do not fit into float32's 24 bits of precision together.
    signed = (tf.cast(images, tf.float64) - low) / half - 1.0
    return tf.cast(tf.clip_by_value(signed, -1.0, 1.0), tf.float32)


def to_signed_rgb(images: tf.Tensor, value_range: ValueRange | None, *, what: str) -> tf.Tensor:
    """Maps images from their range to [-1, 1] for networks that take RGB: `to_signed_by_range`.

    Args:
      images: [B, H, W, C] with RGB or 1 channel, which is repeated.
      value_range: see `range_of`.
      what: takes the images, for error messages.

    Returns:
      float32 [B, H, W, 3].

    Raises:
      TypeError, ValueError: as `to_signed_by_range`, or there are 2 channels or more than 3.
    """
    signed = to_signed_by_range(images, value_range, what=what)
    channels = signed.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"{what}: needs RGB or 1 channel, not {channels}; leave other channels out")
    return signed if channels == 3 else tf.repeat(signed, 3, axis=-1)


def _check_inside(references: tf.Tensor, low: float, high: float, *, what: str) -> tf.Operation | None:
    """Fails on references far outside the range; resizing overshoots by less than half of it."""
    slack = (high - low) / 2
    inside = tf.reduce_all((references >= low - slack) & (references <= high + slack))  # False for NaN
    message = (
        f"{what}: references have values far outside value_range = ({low:g}, {high:g}), or not finite; give "
        "the range that they have"
    )
    if tf.executing_eagerly():
        if not inside:
            raise ValueError(message)
        return None
    return tf.debugging.Assert(inside, [message])
