"""Structural similarity (SSIM, MS-SSIM) of floating-point images; differentiable.

Gaussian window 11x11 with sigma 1.5, inside the image only; K1 = 0.01, K2 = 0.03; population covariances.
"""

from collections.abc import Sequence

import tensorflow as tf

WINDOW = 11
"""Height and width of the window in pixels, and so of the smallest image."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, from fine to coarse, as published."""

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_MIN_MEAN = 1e-6  # a power of a negative number is not real, and that of 0 has no finite derivative


def structural_similarity(images: tf.Tensor, references: tf.Tensor, *, peak: float) -> tf.Tensor:
    """SSIM, Wang et al. 2004 (doi:10.1109/TIP.2003.819861), of each channel, averaged over all of them.

    Args:
      images: floating [B, H, W, C] in [0, peak]; H and W at least 11.
      references: the same dtype and shape.
      peak: the largest possible value of an image.

    Returns:
      [B] of the same dtype in [-1, 1]; 1 for identical images.

    Raises:
      ValueError: H or W is less than 11.
    """
    _check_size(images, scales=1)
    luminance, structure = _comparisons(images, references, peak)
    similarity = _transposed(luminance * structure)  # [B, H - 10, W - 10, C]
    return tf.reduce_mean(similarity, axis=[1, 2, 3])  # [B]


def multiscale_similarity(
    images: tf.Tensor, references: tf.Tensor, *, peak: float, weights: Sequence[float] = MS_SSIM_WEIGHTS
) -> tf.Tensor:
    """MS-SSIM, Wang et al. 2003 (doi:10.1109/ACSSC.2003.1292216).

    Contrast and structure at every scale, and luminance at the coarsest, are averaged over the image and
    raised to the power of the scale's weight. The result is their product, averaged over channels. The next
    scale is the mean of 2x2 pixels. Averages below 1e-6 count as 1e-6, with no gradient.

    Args:
      images: floating [B, H, W, C] in [0, peak]; H and W more than 10 * 2^(scales - 1): at least 161 for five
        scales, 41 for three.
      references: the same dtype and shape.
      peak: the largest possible value of an image.
      weights: one exponent per scale, from fine to coarse.

    Returns:
      [B] of the same dtype in (0, 1]; 1 for identical images.

    Raises:
      ValueError: H or W is too small for that many scales.
    """
    _check_size(images, scales=len(weights))
    product = 1.0
    for scale, weight in enumerate(weights):
        luminance, comparison = _comparisons(images, references, peak)
        if scale == len(weights) - 1:
            comparison *= luminance
        mean = tf.reduce_mean(_transposed(comparison), axis=[1, 2])  # [B, C]
        product *= tf.maximum(mean, tf.constant(_MIN_MEAN, mean.dtype)) ** weight
        if scale < len(weights) - 1:  # an odd last row or column is averaged with itself
            images, references = (tf.nn.avg_pool2d(x, 2, 2, "SAME") for x in (images, references))
    return tf.reduce_mean(product, axis=1)  # [B]


def _comparisons(x: tf.Tensor, y: tf.Tensor, peak: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps of luminance, and of contrast times structure, transposed: [B, W - 10, H - 10, C] each."""
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    weights = _window_weights(x.dtype)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        _window_mean(values, weights) for values in (x, y, x * x, y * y, x * y)
    )
    variance_x = mean_xx - mean_x * mean_x
    variance_y = mean_yy - mean_y * mean_y
    covariance = mean_xy - mean_x * mean_y
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2.0 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def _window_weights(dtype: tf.DType) -> tf.Tensor:
    """The Gaussian along one axis of the window, which is separable: [11, 1, 1, 1], with sum 1."""
    offsets = tf.range(WINDOW, dtype=dtype) - (WINDOW - 1) / 2
    weights = tf.exp(-0.5 * (offsets / _SIGMA) ** 2)
    return tf.reshape(weights / tf.reduce_sum(weights), [WINDOW, 1, 1, 1])


def _window_mean(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean over 11x11 windows, transposed: [B, H, W, C] -> [B, W - 10, H - 10, C]."""
    # Down the columns, then along the rows. Transposing back waits for the result.
    return _column_mean(_transposed(_column_mean(x, weights)), weights)


def _column_mean(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean over 11 rows: [B, H, W, C] -> [B, H - 10, W, C]."""
    # Shapes are those at run time: with static ones TensorFlow rewrites MS-SSIM and changes its last bit.
    _, height, width, channels = tf.unstack(tf.shape(x))
    values_of_row = width * channels
    # The kernel is vectorised over channels, so it takes a whole row of pixels as channels.
    rows = tf.reshape(x, [-1, height, 1, values_of_row])  # [B, H, 1, W C]
    column = tf.tile(weights, [1, 1, values_of_row, 1])  # [11, 1, W C, 1]
    rows = tf.nn.depthwise_conv2d(rows, column, strides=[1, 1, 1, 1], padding="VALID")
    return tf.reshape(rows, [-1, height - WINDOW + 1, width, channels])


def _transposed(x: tf.Tensor) -> tf.Tensor:
    """Swaps height and width."""
    return tf.transpose(x, [0, 2, 1, 3])


def min_image_size(*, scales: int = 1) -> int:
    """Returns the smallest height and width in pixels for a number of scales."""
    return (WINDOW - 1) * 2 ** (scales - 1) + 1  # halves round up


def _check_size(images: tf.Tensor, *, scales: int) -> None:
    smallest = min_image_size(scales=scales)
    for name, pixels in zip(("height", "width"), images.shape[1:3], strict=True):
        if pixels is not None and pixels < smallest:
            at = f" at {scales} scales" if scales > 1 else ""
            raise ValueError(
                f"SSIM{at}: needs images of at least {smallest} x {smallest} pixels; the {name} is {pixels}"
            )
