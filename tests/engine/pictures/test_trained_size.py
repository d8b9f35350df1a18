"""Resizing to the size of the training, and back."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from engine.pictures.trained_size import TrainedSize


def smooth(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / height * 5 + n) * np.cos(columns / width * 4 - n) for n in range(3)]
    return np.uint8(127.5 * (np.stack(waves, axis=-1) + 1))


def test_a_picture_is_resized_as_pillow_does():
    picture = smooth(90, 60)
    size = TrainedSize(height=24, width=32, loaded=(30, 40))
    expected = Image.fromarray(picture).resize((32, 24), Image.Resampling.BICUBIC)
    resized = size.apply(picture, padding=0).numpy()
    assert np.abs(resized.astype(int) - np.asarray(expected)).max() <= 1
    assert size.differs(90, 60) and not size.differs(24, 32) and not size.differs(30, 40)


@pytest.mark.parametrize("keeps_aspect_ratio", [False, True])
@pytest.mark.parametrize("factor", [1, 4])
def test_what_a_network_that_changes_nothing_makes_is_the_picture(keeps_aspect_ratio, factor):
    picture = smooth(90, 60)
    size = TrainedSize(height=64, width=64, loaded=(64, 64), keeps_aspect_ratio=keeps_aspect_ratio)
    signed = tf.cast(size.apply(picture, padding=0), tf.float32) / 127.5 - 1
    output = tf.repeat(tf.repeat(signed, factor, axis=0), factor, axis=1)
    back = size.undo(output, height=90, width=60).numpy()
    assert back.shape == (90 * factor, 60 * factor, 3)
    back = back.reshape(90, factor, 60, factor, 3).mean(axis=(1, 3))
    assert np.abs(back - (picture / 127.5 - 1)).max() < 0.05
