"""Every augmentation, alone and in a list: shapes, roles, probability, repeatability."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from data.augmentation import (
    ColourJitter,
    Crop,
    Cutout,
    Downscale,
    Flip,
    GaussianBlur,
    Grey,
    Invert,
    JpegCompression,
    Noise,
    RandomResizedCrop,
    Rotation,
    augment,
)

# Settings with which every draw changes every image of noise.
PHOTOMETRIC = {
    ColourJitter: {"brightness": 0.5},
    Grey: {},
    Invert: {},
    GaussianBlur: {"sigma": (1, 2)},
    Noise: {"sigma": (0.1, 0.2)},
    Cutout: {"side": (0.5, 0.9)},
    JpegCompression: {"quality": (5, 20)},
    Downscale: {"factor": (2, 3)},
}
EVERYTHING = (
    RandomResizedCrop(),
    Crop(pad=2),
    Flip(vertical=True),
    Rotation(probability=0.7),
    *(kind(on="both", probability=0.7, **settings) for kind, settings in PHOTOMETRIC.items()),
)
SEED = tf.constant([3, 4], tf.int64)


def noise(channels, height=12, width=16):
    return np.random.default_rng(channels).random((height, width, channels)).astype(np.float32)


PAIR = {"input": noise(3), "target": noise(1)}


def seed_of(number):
    return tf.constant([number, 7], tf.int64)


@functools.cache
def compiled(*augmentations):
    return tf.function(lambda images, seed: augment(augmentations, images, seed))


def assert_same(some, others):
    assert some.keys() == others.keys()
    for role in some:
        np.testing.assert_array_equal(some[role], others[role])


@pytest.mark.parametrize(
    "roles, size",
    [(("input", "target"), [12, 16]), (("input", "target"), [None, None]), (("target",), [None, None])],
)
def test_everything_keeps_shape_dtype_and_range(roles, size):
    pair = {role: PAIR[role] for role in roles}
    spec = {role: tf.TensorSpec([*size, x.shape[-1]]) for role, x in pair.items()}
    images = tf.data.Dataset.from_generator(lambda: iter([pair] * 6), output_signature=spec)
    examples = images.enumerate().map(
        lambda number, images: augment(EVERYTHING, images, tf.stack([number, 7])), num_parallel_calls=2
    )
    assert examples.element_spec == spec
    for changed in examples.as_numpy_iterator():
        for role, image in changed.items():
            assert image.shape == pair[role].shape and image.dtype == np.float32
            assert image.min() >= 0 and image.max() <= 1 and np.isfinite(image).all()
            assert np.abs(image - pair[role]).mean() > 0.01


def test_the_same_seed_gives_the_same_pixels_another_gives_others():
    run = compiled(*EVERYTHING)
    first = run(PAIR, SEED)
    assert_same(run(PAIR, SEED), first)
    for role, image in augment(EVERYTHING, PAIR, SEED).items():  # outside of a graph: other roundings
        np.testing.assert_allclose(image, first[role], atol=1 / 255)
    assert np.abs(run(PAIR, seed_of(0))["input"] - first["input"]).mean() > 0.01


def test_augmentations_follow_one_another_with_seeds_of_their_own():
    chain = (Flip(), Rotation(degrees=(20, 90)), Flip(), Noise(), Noise())
    expected = PAIR
    for place, augmentation in enumerate(chain):
        seed = tf.random.fold_in(SEED, tf.constant(place, tf.int64))
        expected = augmentation(expected, seed)
    assert_same(augment(chain, PAIR, SEED), expected)


def test_appending_one_and_changing_one_leave_the_draws_of_the_others():
    base = (Flip(), Noise(), Rotation())
    invert = Invert()
    for number in range(4):
        before = compiled(*base)(PAIR, seed_of(number))
        after = compiled(*base, invert)(PAIR, seed_of(number))
        assert_same(after, invert(before, SEED))
        # Another strength in the middle: where the noise is taken away, the flips are the same.
        without = compiled(base[0], Noise(probability=0.0), base[2])(PAIR, seed_of(number))
        np.testing.assert_array_equal(without["target"], before["target"])


def test_two_alike_draw_independently():
    agreements = 0
    for number in range(40):
        seeds = [tf.random.fold_in(seed_of(number), tf.constant(place, tf.int64)) for place in (0, 1)]
        first, second = (bool(Flip().draw(seed).horizontal) for seed in seeds)
        agreements += first == second
    assert 7 < agreements < 33  # 20 +- 4 sigma


@pytest.mark.parametrize("kind", PHOTOMETRIC)
def test_role_and_chance(kind):
    """Changed are the images `on` names, when the draw says so; both by the same draw."""
    alike = {"input": noise(3), "target": noise(3)}
    for on in ("input", "target", "both"):
        augmentation = kind(on=on, probability=0.5, **PHOTOMETRIC[kind])
        size = (12, 16) if kind is Cutout else ()

        @tf.function
        def run(images, seed, augmentation=augmentation, size=size):
            return augmentation.draw(seed, *size), augmentation(images, seed)

        happened = set()
        for number in range(8):
            drawn, changed = run(alike, seed_of(number))
            happens = bool(getattr(drawn, "happens", drawn))
            happened.add(happens)
            for role, image in alike.items():
                differs = np.abs(changed[role] - image).max() > 0.001
                assert differs == (happens and on in (role, "both"))
            if on == "both":
                np.testing.assert_array_equal(changed["input"], changed["target"])
        assert happened == {True, False}


@pytest.mark.parametrize("kind", [*PHOTOMETRIC, Rotation])
def test_probability(kind):
    augmentation = kind(probability=0.25, **PHOTOMETRIC.get(kind, {}))
    size = (12, 16) if kind is Cutout else ()

    def happens(number):
        drawn = augmentation.draw(tf.stack([number, 7]), *size)
        return getattr(drawn, "happens", drawn)

    happened = tf.data.Dataset.range(1500).map(happens).batch(1500).get_single_element()
    assert abs(happened.numpy().mean() - 0.25) < 0.045  # 4 sigma


def test_degradations_are_of_the_input_colours_of_both():
    inputs_only = {GaussianBlur, Noise, Cutout, JpegCompression, Downscale}
    for kind in PHOTOMETRIC:
        assert kind().on == ("input" if kind in inputs_only else "both")


@pytest.mark.parametrize("kind", PHOTOMETRIC)
def test_a_missing_role_is_ignored(kind):
    only = {"target": PAIR["target"]}
    assert_same(kind(on="input", **PHOTOMETRIC[kind])(only, SEED), only)


def test_no_augmentations_change_nothing():
    assert_same(augment((), PAIR, SEED), PAIR)


@pytest.mark.parametrize(
    "images, message",
    [
        ({}, "takes images named"),
        ({"A": noise(3)}, "'A'"),
        ({"input": noise(3).astype(np.float64)}, "float32 .* not .*float64"),
        ({"input": noise(3)[None]}, "float32"),
        ({"input": noise(3), "target": noise(3, 11)}, "of one height and width"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        augment((Invert(),), images, SEED)


def test_dynamic_sizes_that_differ_are_refused():
    spec = tf.TensorSpec([None, None, 3])
    run = tf.function(
        lambda given, target: augment((Flip(),), {"input": given, "target": target}, SEED),
        input_signature=[spec, spec],
    )
    run(noise(3), noise(3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="input and target differ"):
        run(noise(3), noise(3, 11))
