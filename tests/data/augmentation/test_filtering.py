"""Bicubic resizing of floats against Pillow, with the bounds that its docstring states."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.augmentation.filtering import bicubic


@pytest.mark.parametrize(("shrinks", "bound"), [(False, 0.002), (True, 0.0001)])
def test_bicubic_is_pillows_within_the_stated_bound(shrinks, bound):
    draws = np.random.default_rng(8)
    resize = tf.function(bicubic)
    worst = 0.0
    for _ in range(60):
        height, width = draws.integers(8, 60, 2)
        target = draws.integers(8, 120, 2)
        if not shrinks:
            target = np.maximum(target, (height, width))
        elif not np.any(target < (height, width)):
            continue
        noise = draws.integers(0, 2, (height, width)).astype(np.float32)
        size = tf.constant(target, tf.int32)
        found = resize(tf.constant(noise[..., None]), height=size[0], width=size[1])[..., 0].numpy()
        pillow = Image.fromarray(noise).resize(tuple(map(int, target[::-1])), Image.Resampling.BICUBIC)
        worst = max(worst, np.abs(found - np.clip(np.asarray(pillow), 0, 1)).max())
    assert 0 < worst < bound
