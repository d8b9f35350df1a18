"""Colour changes against torchvision's definitions, written in NumPy and with scikit-image's HSV."""

import functools

import numpy as np
import pytest
import scipy.stats
import skimage.color
import tensorflow as tf

from data.augmentation import ColourJitter, Grey, Invert
from data.errors import DataError

JITTER = ColourJitter(brightness=0.5, contrast=1.2, saturation=0.9, hue=0.4)
SEEDS = range(12)


def picture(channels):
    """Noise from 0 to 1 with some grey pixels, whose hue is not defined: float32 [9, 7, channels]."""
    image = np.random.default_rng(channels).random((9, 7, channels)).astype(np.float32)
    image[:2] = image[:2, :, :1]
    return image


PAIR = {"input": picture(3), "target": picture(1)}


def seed_of(number):
    return tf.constant([number, 7], tf.int64)


@functools.cache
def compiled(augmentation):
    """The augmentation of images of any size and number of channels as graphs."""
    return tf.function(augmentation, reduce_retracing=False)


def draws(draw, count):
    """The draws of `count` examples, inside tf.data: arrays in the structure of one draw."""
    examples = tf.data.Dataset.range(count).map(lambda k: draw(tf.stack([k, 7]))).batch(count)
    return tf.nest.map_structure(lambda drawn: drawn.numpy(), examples.get_single_element())


def assert_uniform(numbers, low, high):
    assert scipy.stats.kstest(numbers, "uniform", (low, high - low)).pvalue > 1e-3


def grey_of(image):
    return image @ np.array([[0.2989], [0.587], [0.114]]) if image.shape[-1] == 3 else image


def jittered(image, drawn):
    """torchvision's ColorJitter with what was drawn."""

    def blend(image, other, factor):
        return np.clip(factor * image + (1 - factor) * other, 0, 1)

    def turn_hue(image):
        hsv = skimage.color.rgb2hsv(image)
        hsv[..., 0] = (hsv[..., 0] + float(drawn.hue)) % 1
        return skimage.color.hsv2rgb(hsv)

    changes = [
        lambda x: blend(x, 0, float(drawn.brightness)),
        lambda x: blend(x, grey_of(x).mean(), float(drawn.contrast)),
        lambda x: blend(x, grey_of(x), float(drawn.saturation)),
        lambda x: turn_hue(x) if x.shape[-1] == 3 else x,
    ]
    image = image.astype(np.float64)
    for change in drawn.order.numpy():
        image = changes[change](image)
    return image


def test_jitter_of_a_colour_and_a_grey_image_is_torchvisions():
    orders = set()
    for number in SEEDS:
        drawn = JITTER.draw(seed_of(number))
        changed = compiled(JITTER)(PAIR, seed_of(number))
        for role, image in PAIR.items():
            np.testing.assert_allclose(changed[role], jittered(image, drawn), atol=2e-5)
        orders.add(tuple(drawn.order.numpy()))
    assert len(orders) > 6


@pytest.mark.parametrize("strength", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_alone(strength):
    settings = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    augmentation = ColourJitter(**settings | {strength: 0.3})
    drawn = augmentation.draw(seed_of(1))
    changed = augmentation(PAIR, seed_of(1))["input"]
    np.testing.assert_allclose(changed, jittered(PAIR["input"], drawn), atol=1e-5)
    assert np.abs(changed - PAIR["input"]).mean() > 0.004
    unchanged = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
    for name, value in unchanged.items():
        assert (float(getattr(drawn, name)) == value) == (name != strength)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_stays(channels):
    image, colours = picture(channels), picture(channels)[..., :-1]
    drawn = JITTER.draw(seed_of(3))
    expected = {JITTER: jittered(colours, drawn), Grey(): grey_of(colours), Invert(): 1 - colours}
    for augmentation, expected_colours in expected.items():
        changed = compiled(augmentation)({"target": image}, seed_of(3))["target"]
        np.testing.assert_array_equal(changed[..., -1], image[..., -1])
        expected_colours = np.broadcast_to(expected_colours, colours.shape)
        np.testing.assert_allclose(changed[..., :-1], expected_colours, atol=2e-5)


def test_images_of_many_channels_have_no_colours():
    image = picture(6)
    augmentation = ColourJitter(brightness=0.4, contrast=0.4, saturation=0, hue=0)
    changed = augmentation({"input": image}, seed_of(2))["input"]
    np.testing.assert_allclose(changed, jittered(image, augmentation.draw(seed_of(2))), atol=1e-5)
    np.testing.assert_allclose(Invert()({"input": image}, seed_of(0))["input"], 1 - image)
    with pytest.raises(DataError, match="6 channels has neither saturation nor hue"):
        JITTER({"input": image}, seed_of(0))
    with pytest.raises(DataError, match="6 channels has no colours"):
        Grey()({"input": image}, seed_of(0))


def test_distribution_of_the_jitter():
    drawn = draws(JITTER.draw, 1000)
    assert drawn.happens.all()
    assert_uniform(drawn.brightness, 0.5, 1.5)
    assert_uniform(drawn.contrast, 0, 2.2)  # not below 0
    assert_uniform(drawn.saturation, 0.1, 1.9)
    assert_uniform(drawn.hue, -0.4, 0.4)
    strengths = np.stack(drawn[1:5])
    assert np.abs(np.corrcoef(strengths) - np.eye(4)).max() < 0.13  # 4 sigma
    _, counts = np.unique(drawn.order, axis=0, return_counts=True)
    assert len(counts) == 24 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_grey_keeps_channels_and_grey_images():
    changed = compiled(Grey())(PAIR, seed_of(0))
    np.testing.assert_allclose(changed["input"], np.repeat(grey_of(PAIR["input"]), 3, -1), atol=1e-6)
    np.testing.assert_array_equal(changed["target"], PAIR["target"])


def test_invert():
    changed = compiled(Invert(on="input"))(PAIR, seed_of(0))
    np.testing.assert_array_equal(changed["input"], 1 - PAIR["input"])
    np.testing.assert_array_equal(changed["target"], PAIR["target"])


@pytest.mark.parametrize("kind", [Grey, Invert])
def test_probability_of_grey_and_invert(kind):
    assert abs(draws(kind(probability=0.2).draw, 2000).mean() - 0.2) < 0.036  # 4 sigma


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: ColourJitter(brightness=-0.1),
            "ColourJitter.brightness = -0.1: must be a number, at least 0",
        ),
        (lambda: ColourJitter(contrast="strong"), "ColourJitter.contrast"),
        (lambda: ColourJitter(saturation=float("inf")), "ColourJitter.saturation"),
        (lambda: ColourJitter(hue=0.6), "ColourJitter.hue = 0.6: must be a number, from 0 to 0.5"),
        (lambda: ColourJitter(brightness=0, contrast=0, saturation=0, hue=0), "leave ColourJitter out"),
        (lambda: ColourJitter(probability=2), "ColourJitter.probability"),
        (lambda: ColourJitter(on="A"), "ColourJitter.on = 'A': must be 'both', 'input' or 'target'"),
        (lambda: Grey(probability=-1), "Grey.probability"),
        (lambda: Grey(on=None), "Grey.on"),
        (lambda: Invert(probability=None), "Invert.probability"),
        (lambda: Invert(on="output"), "Invert.on"),
    ],
)
def test_settings_are_refused_in_one_line(make, message):
    with pytest.raises(DataError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
