"""Per-image quality measures on the grey levels of uint8 images.

Every function takes two uint8 tensors of one shape [B, H, W, C] and gives float64 [B]; average over
the set afterwards. Only uint8 is taken, so that no result can be off by a wrong range.
"""

import math

import tensorflow as tf

PSNR_CAP_DB = 100.0
"""PSNR of identical images: their true value, infinity, is not JSON and would poison means."""

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = (0.01 * 255.0) ** 2
_SSIM_C2 = (0.03 * 255.0) ** 2


def mae(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference over H, W, C in grey levels: uint8 [B, H, W, C] twice -> [B]."""
    images, references = _as_float64(images, references)
    return tf.reduce_mean(tf.abs(images - references), axis=[1, 2, 3])  # [B]


def mse(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Mean squared difference over H, W, C: uint8 [B, H, W, C] twice -> float64 [B]."""
    images, references = _as_float64(images, references)
    return tf.reduce_mean(tf.math.squared_difference(images, references), axis=[1, 2, 3])  # [B]


def rmse(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Square root of `mse`, in grey levels: uint8 [B, H, W, C] twice -> float64 [B]."""
    return tf.sqrt(mse(images, references))


def psnr_db(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Peak signal-to-noise ratio, 10 log10(255^2 / MSE), capped at 100 dB.

    Args:
        images, references: uint8 [B, H, W, C].

    Returns:
        float64 [B] in dB; identical images give `PSNR_CAP_DB`.

    Raises:
        TypeError: a dtype is not uint8.
        ValueError: the shapes differ or are not [B, H, W, C].
    """
    errors = mse(images, references)
    # 10 log10(255^2 / floor) is the cap, and log(0) never happens.
    floor = 255.0**2 / 10.0 ** (PSNR_CAP_DB / 10.0)
    return 10.0 / math.log(10.0) * tf.math.log(255.0**2 / tf.maximum(errors, floor))


def ssim(images: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Structural similarity, Wang et al. 2004 (doi:10.1109/TIP.2003.819861).

    Gaussian window 11x11 with sigma 1.5 inside the image only, K1 = 0.01, K2 = 0.03, L = 255,
    population covariances; computed for each channel and averaged over all of them.

    Args:
        images, references: uint8 [B, H, W, C], H and W at least 11.

    Returns:
        float64 [B] in [-1, 1]; 1 for identical images.

    Raises:
        TypeError: a dtype is not uint8.
        ValueError: the shapes differ, are not [B, H, W, C], or a side is shorter than 11.
    """
    x, y = _as_float64(images, references)
    for name, side in zip(("height", "width"), x.shape[1:3], strict=True):
        if side is not None and side < _SSIM_WINDOW:
            raise ValueError(
                f"SSIM needs images of at least {_SSIM_WINDOW} pixels a side; the {name} is {side}."
            )
    mean_x, mean_y = _window_mean(x), _window_mean(y)  # [B, H - 10, W - 10, C]
    variance_x = _window_mean(x * x) - mean_x * mean_x
    variance_y = _window_mean(y * y) - mean_y * mean_y
    covariance = _window_mean(x * y) - mean_x * mean_y
    luminance = (2.0 * mean_x * mean_y + _SSIM_C1) / (mean_x**2 + mean_y**2 + _SSIM_C1)
    structure = (2.0 * covariance + _SSIM_C2) / (variance_x + variance_y + _SSIM_C2)
    return tf.reduce_mean(luminance * structure, axis=[1, 2, 3])  # [B]


def _window_mean(x):
    """Gaussian-weighted mean over 11x11 windows: [B, H, W, C] -> [B, H - 10, W - 10, C]."""
    offsets = tf.range(_SSIM_WINDOW, dtype=tf.float64) - (_SSIM_WINDOW - 1) / 2
    weights = tf.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    weights /= tf.reduce_sum(weights)
    channels = tf.shape(x)[-1]
    # The window is separable: a column, then a row.
    column = tf.tile(weights[:, None, None, None], [1, 1, channels, 1])  # [11, 1, C, 1]
    row = tf.tile(weights[None, :, None, None], [1, 1, channels, 1])  # [1, 11, C, 1]
    x = tf.nn.depthwise_conv2d(x, column, strides=[1, 1, 1, 1], padding="VALID")
    return tf.nn.depthwise_conv2d(x, row, strides=[1, 1, 1, 1], padding="VALID")


def _as_float64(images, references):
    """Checks two uint8 tensors of one shape [B, H, W, C] and gives both as float64."""
    images, references = tf.convert_to_tensor(images), tf.convert_to_tensor(references)
    for tensor in (images, references):
        if tensor.dtype != tf.uint8:
            raise TypeError(
                f"Image metrics take uint8 in [0, 255], not {tensor.dtype.name}: convert images in "
                "[-1, 1] with data.imaging.to_uint8."
            )
        if tensor.shape.rank != 4:
            raise ValueError(f"Image metrics take shapes [B, H, W, C], not {tensor.shape}.")
    if not images.shape.is_compatible_with(references.shape):
        raise ValueError(f"Image metrics need one shape, not {images.shape}, {references.shape}.")
    # Shapes unknown while tracing are compared when they are known: broadcasting would hide them.
    same_shape = tf.debugging.assert_equal(tf.shape(images), tf.shape(references))
    with tf.control_dependencies([same_shape] if same_shape is not None else []):
        return tf.cast(images, tf.float64), tf.cast(references, tf.float64)
