"""Conversion between sRGB and CIE L*a*b*, differentiable everywhere.

sRGB curve: IEC 61966-2-1. Linear R, G, B to X, Y, Z: the primaries of Rec. ITU-R BT.709 with white D65, in
the digits of C. Poynton's Color FAQ, as in OpenCV and scikit-image. L*a*b*: CIE 15:2004, 8.2.1,
against the white D65 of the 2-degree observer (ASTM E308).
"""

import numpy as np
import tensorflow as tf

_RGB_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
_DELTA = 6 / 29  # below its cube, L*a*b* has a linear function instead of the cube root


def rgb_to_lab(images: tf.Tensor) -> tf.Tensor:
    """Converts sRGB to L*a*b*.

    Args:
      images: floating [..., 3] in [0, 1]; an array or a tensor. Values outside are not clipped.

    Returns:
      The same dtype and shape: L* in [0, 100], a* and b* within [-108, 99] for colours of sRGB.

    Raises:
      TypeError: the dtype is not a floating-point type.
      ValueError: the last axis is not 3.
    """
    x = _checked(images)
    # Both branches are differentiated, so each gets only values where its derivative is finite.
    power = _power((tf.maximum(x, 0.04045) + 0.055) / 1.055, 2.4)
    linear = tf.where(x > 0.04045, power, x / 12.92)
    planes = []
    for t in _mixed(linear, _RGB_TO_XYZ / _WHITE_D65[:, None]):  # X / Xn, Y / Yn, Z / Zn
        root = _power(tf.maximum(t, _DELTA**3), 1 / 3)
        planes.append(tf.where(t > _DELTA**3, root, t / (3 * _DELTA**2) + 4 / 29))
    fx, fy, fz = planes
    return tf.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def lab_to_rgb(images: tf.Tensor) -> tf.Tensor:
    """Converts L*a*b* to sRGB; the inverse of `rgb_to_lab`.

    Not clipped: colours outside sRGB give values outside [0, 1].
    """
    lightness, a, b = tf.unstack(_checked(images), axis=-1)
    fy = (lightness + 16) / 116
    f = tf.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    t = tf.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    linear = tf.stack(_mixed(t, np.linalg.inv(_RGB_TO_XYZ) * _WHITE_D65), axis=-1)
    power = 1.055 * _power(tf.maximum(linear, 0.0031308), 1 / 2.4) - 0.055
    return tf.where(linear > 0.0031308, power, 12.92 * linear)


def _checked(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    if not images.dtype.is_floating:
        raise TypeError(f"L*a*b* conversion: takes floating-point values, not {images.dtype.name}")
    if images.shape[-1] != 3:
        raise ValueError(f"L*a*b* conversion: takes three channels, not the shape {images.shape}")
    return images


def _power(x: tf.Tensor, exponent: float) -> tf.Tensor:
    """Positive numbers to a power, in a third of the time of TensorFlow's `x**exponent`."""
    return tf.exp(exponent * tf.math.log(x))


def _mixed(x: tf.Tensor, weights: np.ndarray) -> list[tf.Tensor]:
    """The product weights @ channels, as three planes [...], since operations along an axis of 3 are slow.

    Not a matrix product: GPUs would round its operands (TF32).
    """
    planes = tf.unstack(x, axis=-1)
    return [tf.add_n([float(w) * plane for w, plane in zip(row, planes, strict=True)]) for row in weights]
