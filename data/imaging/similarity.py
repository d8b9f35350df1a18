"""Structural similarity of floating-point images, at one scale and at several; differentiable.

Gaussian window 11x11 with sigma 1.5 inside the image only, K1 = 0.01, K2 = 0.03, population covariances.
"""

import tensorflow as tf

WINDOW = 11
"""Pixels a side of the window, and so of the smallest image."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, from fine to coarse, as published."""

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
_SMALLEST = 1e-6  # the power of a negative number is not real, and that of 0 has no finite derivative


def structural_similarity(images, references, *, peak):
    """SSIM, Wang et al. 2004 (doi:10.1109/TIP.2003.819861), of each channel, averaged over all of them.

    Args:
        images, references: tensors of one floating dtype, [B, H, W, C] in [0, peak]; H and W at least 11.
        peak: the largest value an image can have.

    Returns:
        [B] of the same dtype in [-1, 1]; 1 for identical images.

    Raises:
        ValueError: a side is shorter than 11.
    """
    _check_sides(images, scales=1)
    luminance, structure = _comparisons(images, references, peak)
    return tf.reduce_mean(luminance * structure, axis=[1, 2, 3])  # [B]


def multiscale_similarity(images, references, *, peak, weights=MS_SSIM_WEIGHTS):
    """MS-SSIM, Wang et al. 2003 (doi:10.1109/ACSSC.2003.1292216).

    Contrast and structure at every scale, luminance at the coarsest, each averaged over the image, to the
    power of its weight; the product for each channel, averaged over channels. Scales halve by means of
    2x2 pixels. Averages below 1e-6 count as 1e-6, with no gradient.

    Args:
        images, references: tensors of one floating dtype, [B, H, W, C] in [0, peak]; H and W more than
            10 * 2^(scales - 1): 161 for five scales, 41 for three.
        peak: the largest value an image can have.
        weights: one exponent a scale, from fine to coarse.

    Returns:
        [B] of the same dtype in (0, 1]; 1 for identical images.

    Raises:
        ValueError: a side is too short for that many scales.
    """
    _check_sides(images, scales=len(weights))
    product = 1.0
    for scale, weight in enumerate(weights):
        luminance, comparison = _comparisons(images, references, peak)
        if scale == len(weights) - 1:
            comparison *= luminance
        mean = tf.reduce_mean(comparison, axis=[1, 2])  # [B, C]
        product *= tf.maximum(mean, tf.constant(_SMALLEST, mean.dtype)) ** weight
        if scale < len(weights) - 1:  # an odd last row or column is averaged with itself
            images, references = (tf.nn.avg_pool2d(x, 2, 2, "SAME") for x in (images, references))
    return tf.reduce_mean(product, axis=1)  # [B]


def _comparisons(x, y, peak):
    """Maps of luminance, and of contrast times structure: [B, H - 10, W - 10, C] each."""
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x * mean_x
    variance_y = _window_mean(y * y) - mean_y * mean_y
    covariance = _window_mean(x * y) - mean_x * mean_y
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2.0 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def _window_mean(x):
    """Gaussian-weighted mean over 11x11 windows: [B, H, W, C] -> [B, H - 10, W - 10, C]."""
    offsets = tf.range(WINDOW, dtype=x.dtype) - (WINDOW - 1) / 2
    weights = tf.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights /= tf.reduce_sum(weights)
    channels = tf.shape(x)[-1]
    # The window is separable: a column, then a row.
    column = tf.tile(weights[:, None, None, None], [1, 1, channels, 1])  # [11, 1, C, 1]
    row = tf.tile(weights[None, :, None, None], [1, 1, channels, 1])  # [1, 11, C, 1]
    x = tf.nn.depthwise_conv2d(x, column, strides=[1, 1, 1, 1], padding="VALID")
    return tf.nn.depthwise_conv2d(x, row, strides=[1, 1, 1, 1], padding="VALID")


def smallest_side(*, scales=1):
    """Pixels a side of the smallest image that so many scales take."""
    return (WINDOW - 1) * 2 ** (scales - 1) + 1  # halves round up


def _check_sides(images, *, scales):
    smallest = smallest_side(scales=scales)
    for name, side in zip(("height", "width"), images.shape[1:3], strict=True):
        if side is not None and side < smallest:
            at = f" at {scales} scales" if scales > 1 else ""
            raise ValueError(
                f"SSIM{at} needs images of at least {smallest} pixels a side; the {name} is {side}."
            )
