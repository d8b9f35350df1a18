"""Nearest-neighbour resizing against Pillow and NumPy; one-hot images against comparisons of whole pixels."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import imaging


@pytest.mark.parametrize(
    "size, new_size", [((64, 64), (72, 72)), ((64, 48), (31, 100)), ((7, 5), (7, 11)), ((50, 80), (13, 17))]
)
def test_nearest_equals_pillow(size, new_size):
    image = np.arange(size[0] * size[1]).reshape(*size, 1).astype(np.float32)  # every pixel is different
    resized = imaging.nearest(image, height=new_size[0], width=new_size[1]).numpy()[..., 0].astype(int)
    expected = np.asarray(
        Image.fromarray(image[..., 0]).resize(new_size[::-1], Image.Resampling.NEAREST)
    ).astype(int)
    # A centre may lie exactly between two pixels, where Pillow's sums of floats decide by their rounding.
    tie = [
        [(2 * k + 1) * old % (2 * new) == 0 for k in range(new)]
        for old, new in zip(size, new_size, strict=True)
    ]
    clear = ~(np.array(tie[0])[:, None] | np.array(tie[1])[None, :])
    assert clear.mean() > 0.4
    np.testing.assert_array_equal(resized[clear], expected[clear])
    rows, columns = (
        [int(np.floor((k + 0.5) * old / new)) for k in range(new)]
        for old, new in zip(size, new_size, strict=True)
    )
    indices = np.array(rows)[:, None] * size[1] + np.array(columns)
    assert (resized == indices)[clear].all()
    assert np.abs(resized // size[1] - indices // size[1]).max() <= 1


@pytest.mark.parametrize("dtype, scale", [(np.uint8, 1), (np.uint16, 257), (np.float32, 1)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_hot_images_tell_every_class(channels, dtype, scale):
    rng = np.random.default_rng(channels)
    top = 255 * scale
    palette = rng.permutation([*np.ndindex(*[4] * channels)])[:4] * 85 * scale
    palette[0] = top  # the largest digits of all channels
    palette[1:, 0] = np.arange(3) * 85 * scale  # all of them differ
    classes = tuple(tuple(map(int, pixel)) for pixel in palette)
    indices = rng.integers(0, 4, (2, 5, 6))
    stored = palette[indices].astype(dtype)
    one_hot = imaging.OneHot(classes=classes, value_range=(0, top))
    expected = np.eye(4, dtype=np.float32)[indices]
    signed = imaging.range_to_signed(stored, low=0, high=top)
    unit = tf.cast(stored, tf.float32) / top
    for images, low, high in ((stored, 0, top), (signed, -1.0, 1.0), (unit, 0.0, 1.0)):
        found = tf.function(lambda x, low=low, high=high: one_hot.encode(x, low=low, high=high))(images)
        assert found.dtype == tf.float32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(one_hot.decode(expected), stored // scale)


def test_what_is_no_class_is_zero_everywhere():
    one_hot = imaging.OneHot(classes=((-1,), (0,), (18,)), value_range=(-1.0, 18.0))
    stored = np.array([-1, 0, 18, 5, 17], np.float32)[:, None]
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(one_hot.encode(stored, low=-1.0, high=18.0), expected)
    np.testing.assert_array_equal(one_hot.decode(np.float32(expected))[:, 0], [0, 13, 255, 0, 0])
    np.testing.assert_array_equal(one_hot.decode_apart(np.float32(expected))[:, 0], [0, 127, 255, 0, 0])
