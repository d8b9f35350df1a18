"""Bicubic resampling against Pillow, in floating point."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import imaging


@pytest.mark.parametrize("size", [(20, 31), (61, 40), (7, 90), (29, 37)])  # (height, width)
def test_resample_equals_pillow(size):
    images = np.random.default_rng(0).uniform(0, 1, (2, 29, 37, 3)).astype(np.float32)
    found = tf.function(imaging.resample)(images, height=size[0], width=size[1])
    for image, result in zip(images, found, strict=True):
        for channel in range(3):
            expected = Image.fromarray(image[..., channel]).resize(size[::-1], Image.Resampling.BICUBIC)
            np.testing.assert_allclose(result[..., channel], expected, atol=2e-6)
