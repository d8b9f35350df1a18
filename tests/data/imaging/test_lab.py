"""L*a*b* against scikit-image and published colours."""

import numpy as np
import pytest
import skimage.color
import tensorflow as tf

from data import imaging


def colours():
    """[4096, 3]: a grid over the whole cube, black and white included."""
    return np.stack(np.meshgrid(*[np.linspace(0, 1, 16)] * 3), -1).reshape(-1, 3)


def test_lab_equals_scikit_image():
    rgb = colours()
    # scikit-image rounds the slope of the line near black (7.787), which is up to 2e-4 here.
    np.testing.assert_allclose(imaging.rgb_to_lab(rgb), skimage.color.rgb2lab(rgb), rtol=0, atol=2e-4)
    bright = rgb[rgb.min(-1) > 0.2]
    np.testing.assert_allclose(imaging.rgb_to_lab(bright), skimage.color.rgb2lab(bright), rtol=0, atol=1e-10)
    lab = skimage.color.rgb2lab(rgb)
    np.testing.assert_allclose(imaging.lab_to_rgb(lab), skimage.color.lab2rgb(lab), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # sRGB's primaries under D65, as colour tables print them
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    np.testing.assert_allclose(imaging.rgb_to_lab(np.array(rgb, np.float64)), lab, rtol=0, atol=0.01)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_lab_and_back(dtype, tolerance):
    rgb = colours().astype(dtype)
    back = imaging.lab_to_rgb(imaging.rgb_to_lab(rgb))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, rgb, rtol=0, atol=tolerance)


@pytest.mark.parametrize("convert", [imaging.rgb_to_lab, imaging.lab_to_rgb])
def test_lab_has_finite_right_gradients(convert):
    x = tf.constant([[0, 0, 0], [1, 1, 1], [0.04045, 0.2, 0.7], [-0.1, 1.2, 0.003]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = convert(x)
    gradient = tape.gradient(y, x)
    assert np.all(np.isfinite(gradient))
    nudge = 1e-6  # two-sided differences, where no colour lies on a corner of the curves
    for channel in range(3):
        shift = np.eye(3)[channel] * nudge
        slope = tf.reduce_sum(convert(x[1:2] + shift) - convert(x[1:2] - shift)) / (2 * nudge)
        np.testing.assert_allclose(gradient[1, channel], slope, rtol=1e-5)


def test_lab_refuses_what_it_cannot_convert():
    with pytest.raises(TypeError, match="uint8"):
        imaging.rgb_to_lab(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="three channels"):
        imaging.lab_to_rgb(np.zeros((4, 4, 1)))
