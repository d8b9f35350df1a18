"""Strengths and compositions of degradations, against closed forms and exact distributions."""

import collections
import dataclasses
import functools
import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from data.augmentation import (
    Cutout,
    Downscale,
    GaussianBlur,
    JpegCompression,
    Noise,
    RandomDegradations,
    Rotation,
    augment,
)
from data.errors import DataError
from data.pipeline import record_reader
from data.single import SingleImages
from data.supply import Supply
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from models.supervised import Supervised

DEGRADATIONS = (
    GaussianBlur(sigma=(0.5, 2.0)),
    Noise(sigma=(0.05, 0.1), gain=(0.01, 0.02)),
    Cutout(),
    JpegCompression(quality=(10, 40)),
    Downscale(factor=(1.5, 4.0)),
)
IMAGE = np.random.default_rng(0).random([24, 20, 3], np.float32)


def seed_of(number):
    return tf.stack([tf.cast(number, tf.int64), 7])


@functools.cache
def compiled(degradation):
    spec = {"input": tf.TensorSpec([None, None, 3])}
    return tf.function(
        lambda images, seed, strength: degradation(images, seed, strength=strength),
        input_signature=[spec, tf.TensorSpec([2], tf.int64), tf.TensorSpec([])],
    )


@pytest.mark.parametrize(
    "degradation",
    [*DEGRADATIONS, RandomDegradations(degradations=DEGRADATIONS, rounds=2)],
    ids=lambda each: type(each).__name__,
)
def test_strength_0_is_the_identity_and_1_is_no_strength(degradation):
    images = {"input": IMAGE}
    for number in range(3):
        seed = seed_of(number)
        whole = degradation(images, seed)["input"].numpy()
        assert not np.array_equal(whole, IMAGE)
        found = compiled(degradation)(images, seed, tf.constant(0.0))["input"].numpy()
        np.testing.assert_array_equal(found, IMAGE)
        found = compiled(degradation)(images, seed, tf.constant(1.0))["input"].numpy()
        np.testing.assert_allclose(found, whole, rtol=0, atol=2e-6)


def test_parameters_are_linear_in_the_strength():
    """A fifth of the strength: parameters are uniform in ranges a fifth as far from the identity."""

    def drawn(strength):
        def draws(number):
            seed, given = seed_of(number), None if strength is None else tf.constant(strength)
            blur, noise, cutout, jpeg, shrinking = DEGRADATIONS
            return {
                "sigma": blur.draw(seed, given).sigma,
                "deviation": noise.draw(seed, given).sigma,
                "gain": noise.draw(seed, given).gain,
                "side": cutout.draw(seed, 100, 100, given).side[0],
                "quality": jpeg.draw(seed, given).quality,
                "factor": shrinking.draw(seed, given).factor,
            }

        examples = tf.data.Dataset.range(400).map(draws).batch(400).get_single_element()
        return {name: values.numpy() for name, values in examples.items()}

    whole, weak = drawn(None), drawn(0.2)
    np.testing.assert_allclose(weak["sigma"], 0.2 * whole["sigma"], rtol=1e-6)
    np.testing.assert_allclose(weak["deviation"], 0.2 * whole["deviation"], rtol=1e-6)
    np.testing.assert_allclose(weak["gain"], 0.04 * whole["gain"], rtol=1e-6)  # a variance
    np.testing.assert_allclose(weak["side"], 0.2 * whole["side"], atol=0.61)  # both rounded
    np.testing.assert_allclose(weak["quality"], 100 - 0.2 * (100 - whole["quality"]), atol=0.5001)
    np.testing.assert_allclose(weak["factor"], 1 + 0.2 * (whole["factor"] - 1), rtol=1e-6)
    assert scipy.stats.kstest(weak["sigma"], "uniform", (0.1, 0.3)).pvalue > 1e-3


@dataclasses.dataclass(frozen=True)
class Affine:
    """x -> scale x + shift: no two of them commute."""

    scale: float
    shift: float

    def __call__(self, images, seed, *, strength=None):
        return {role: self.scale * image + self.shift for role, image in images.items()}


AFFINE = tuple(Affine(0.5 + 0.1 * k, 0.05 * k * k) for k in range(1, 4))


def orders(degradations, count):
    """What `count` examples draw, as tuples."""
    drawn = tf.data.Dataset.range(count).map(lambda k: degradations.draw(seed_of(k)))
    return [tuple(order.tolist()) for order in drawn.as_numpy_iterator()]


def test_number_choice_and_order_are_uniform():
    """Each number from 0 to 3 as often, and each arrangement of so many."""
    found = collections.Counter(orders(RandomDegradations(degradations=AFFINE, count=(0, 3)), 2400))
    arrangements = [order for n in range(4) for order in itertools.permutations(range(3), n)]
    of_number = collections.Counter(map(len, arrangements))
    expected = [600 / of_number[len(order)] for order in arrangements]
    assert set(found) == set(arrangements)
    assert scipy.stats.chisquare([found[order] for order in arrangements], expected).pvalue > 1e-3
    assert {len(order) for order in orders(RandomDegradations(degradations=AFFINE), 100)} == {1, 2, 3}


def test_rounds_draw_independently():
    found = collections.Counter(orders(RandomDegradations(degradations=AFFINE, count=(1, 1), rounds=2), 1800))
    assert len(found) == 9 and scipy.stats.chisquare(list(found.values())).pvalue > 1e-3


def test_degradations_apply_in_the_order_drawn():
    degradations = RandomDegradations(degradations=AFFINE, rounds=2)
    results = set()
    for number in range(8):
        seed = seed_of(number)
        order = degradations.draw(tf.random.split(seed, 2)[0]).numpy()
        expected = IMAGE
        for index in order:
            expected = AFFINE[index].scale * expected + AFFINE[index].shift
        found = degradations({"input": IMAGE}, seed)["input"].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        results.add(tuple(order))
    assert len(results) > 4


def test_strength_rises_linearly_and_is_whole_in_evaluation():
    degradations = RandomDegradations(degradations=AFFINE, initial_strength=0.25, ramp_examples=40)
    positions = [0, 10, 20, 39, 40, 41, 10**12]
    found = [float(degradations.strength_at(tf.constant(k, tf.int64))) for k in positions]
    np.testing.assert_allclose(found, np.interp(positions, [0, 40], [0.25, 1.0]), rtol=1e-7)
    assert degradations.strength_at(None) is None
    assert RandomDegradations(degradations=AFFINE).strength_at(tf.constant(3, tf.int64)) is None


@dataclasses.dataclass(frozen=True)
class Mark:
    """Shows the strength as a grey level."""

    def __call__(self, images, seed, *, strength=None):
        level = tf.constant(1.0) if strength is None else strength
        return images | {"input": tf.ones_like(images["input"]) * level}


RAMP = 57  # not a whole number of epochs of 22 examples


def marked(data_dir, **settings):
    degradations = RandomDegradations(degradations=(Mark(),), ramp_examples=RAMP)
    return SingleImages(
        dataset="small",
        data_dir=data_dir,
        feature="A",
        load_size=16,
        crop_size=16,
        augmentations=(Rotation(), degradations),
        **settings,
    )


def strengths(data, *, position, batch, count, rows=None):
    """Strengths that examples got: of `count` batches from a position."""
    batches = data.batches(position_examples=position, global_batch=batch, rows=rows).take(count)
    return np.concatenate([(each["input"].numpy()[:, 3, 3, 0] + 1) / 2 for each in batches])


@pytest.mark.parametrize(
    "supply", [Supply(window_bytes=4000), Supply(cache="memory")], ids=["windows", "cache"]
)
def test_strength_is_that_of_the_position_in_the_run(small_set, supply):
    """From the start, from the middle of an epoch after a restart, and for the rows of one worker."""
    data = marked(small_set, supply=supply)
    expected = np.minimum(np.arange(120) / RAMP, 1.0)
    np.testing.assert_allclose(strengths(data, position=0, batch=35, count=2), expected[:70], atol=1e-6)
    np.testing.assert_allclose(strengths(data, position=31, batch=4, count=9), expected[31:67], atol=1e-6)
    found = strengths(data, position=5, batch=6, count=8, rows=[1, 4])
    np.testing.assert_allclose(found, expected[5:53].reshape(8, 6)[:, [1, 4]].ravel(), atol=1e-6)
    [evaluated] = data.evaluation("test", batch=5)
    np.testing.assert_allclose(evaluated["input"], 1.0, atol=1e-6)


def test_windows_of_a_service_know_their_positions(small_set):
    [stream] = marked(small_set, supply=Supply(window_bytes=4000))._streams["train"]
    order = stream.order
    assert order.windows > 2
    for position in (0, 30):
        read = record_reader.training_windows(
            records=stream.part, order=order, position_examples=position
        ).take(50)
        found = [int(each["position"]) for each in read.as_numpy_iterator()]
        start = order.locate(position)
        first = start.epoch * order.examples + start.window * order.window_examples
        assert found == list(range(first, first + 50)) and first <= position


def test_the_same_degradations_after_a_restart_and_on_every_worker(small_set):
    data = dataclasses.replace(
        marked(small_set), augmentations=(RandomDegradations(degradations=DEGRADATIONS, ramp_examples=30),)
    )
    whole = np.concatenate(
        [each["input"].numpy() for each in data.batches(position_examples=0, global_batch=8).take(5)]
    )
    restarted = next(iter(data.batches(position_examples=26, global_batch=5)))["input"].numpy()
    np.testing.assert_array_equal(restarted, whole[26:31])
    of_worker = next(iter(data.batches(position_examples=24, global_batch=8, rows=[4, 5, 6])))[
        "input"
    ].numpy()
    np.testing.assert_array_equal(of_worker, whole[28:31])
    evaluated = [[each["input"].numpy() for each in data.evaluation("test", batch=b)] for b in (5, 2)]
    np.testing.assert_array_equal(evaluated[0][0], np.concatenate(evaluated[1]))


def test_a_run_converts_the_length_of_the_ramp(small_set):
    def experiment(ramp):
        degradations = RandomDegradations(degradations=AFFINE, ramp_examples=ramp)
        data = dataclasses.replace(marked(small_set), augmentations=(Rotation(), degradations))
        return Experiment(task=Supervised(), data=data, total_examples="10ep")

    for ramp, examples in (("50%", 110), ("2ep", 44), ("7", 7), (9, 9)):
        rotation, degradations = experiment(ramp).with_data_lengths().data.augmentations
        assert degradations.ramp_examples == examples and rotation == Rotation()
    with pytest.raises(ConfigurationError, match="ramp_examples = 'soon': not a length of training"):
        experiment("soon").with_data_lengths()
    with pytest.raises(DataError, match="ramp_examples = '50%': depends on a run"):
        augment(
            [experiment("50%").data.augmentations[1]], {"input": IMAGE}, seed_of(1), position=seed_of(1)[0]
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degradations": ()}, "degradations: must be degradations"),
        ({"degradations": (Rotation(),)}, "take no strength stand beside"),
        (
            {"count": (1, 4)},
            "count = .1, 4.: must be two whole numbers .low, high. with 0 <= low <= high <= 3",
        ),
        ({"rounds": 0}, "rounds = 0: must be a whole number, at least 1"),
        ({"initial_strength": 1.5}, "initial_strength = 1.5: must be a number, from 0 to 1"),
        ({"ramp_examples": -1}, "ramp_examples = -1: must be a whole number, at least 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        RandomDegradations(**{"degradations": AFFINE} | settings)
