"""Metrics of a whole split, against NumPy and scikit-image, on any number of replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data import imaging
from data.description import DataDescription, ImageFormat
from engine.adaptive_batch import GrowOnPlateau
from engine.batching.batch_layout import rows_of_replicas
from engine.distribution.devices import devices_of, make_devices
from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.evaluation.baselines import BASELINES
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.sample_grid import join_columns
from engine.evaluation.text_table import table
from engine.experiment import Experiment
from engine.task import Task


class Darker(Task):
    """Not learned: output = input - 0.3, which leaves [-1, 1] in places."""

    def __init__(self):
        self.optimizers = {}

    def networks(self, example):
        return {}

    def phases(self):
        return ()

    def translate(self, networks, batch):
        return batch["input"] - 0.3


def grey_levels(images):
    return np.clip(np.floor((images.astype(np.float64) + 1) * 127.5 + 0.5), 0, 255)


def by_hand(outputs, targets):
    """The means of each metric, [N, H, W, C] grey levels; nothing shared with the code under test."""
    errors = outputs - targets
    mse = np.mean(errors**2, axis=(1, 2, 3))
    return {
        "mae": np.mean(np.abs(errors)),
        "mse": np.mean(mse),
        "rmse": np.mean(np.sqrt(mse)),
        "psnr_db": np.mean(10 * np.log10(255**2 / mse)),
        "ssim": np.mean(
            [
                structural_similarity(
                    a,
                    b,
                    data_range=255,
                    channel_axis=-1,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in zip(outputs, targets, strict=True)
            ]
        ),
    }


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_whole_split_beside_its_baselines(noise_pairs, replicas):
    data = noise_pairs(size=24)
    set_precision("float32")
    evaluator = Evaluator(
        task=Darker(),
        devices=make_devices("mirrored", cpu_replicas=replicas),
        data=data,
        networks={},
    )
    evaluator._translator._batch = 4  # 5 images: 4 and 1, so that a replica goes without one
    assert rows_of_replicas(1, 3) == (1, 0, 0)
    result = evaluator.evaluate("test", baselines=BASELINES)
    assert result.examples == 5
    images = {
        split: {
            name: np.concatenate([batch[name].numpy() for batch in data.evaluation(split, batch=2)])
            for name in ("input", "target")
        }
        for split in ("train", "test")
    }
    inputs, targets = (images["test"][name] for name in ("input", "target"))
    mean_target = np.round(np.mean(grey_levels(images["train"]["target"]), axis=0))
    expected = {
        "model": by_hand(grey_levels(inputs - np.float32(0.3)), grey_levels(targets)),
        "input": by_hand(grey_levels(inputs), grey_levels(targets)),
        "mean target": by_hand(np.broadcast_to(mean_target, targets.shape), grey_levels(targets)),
    }
    measured = {"model": result.model, **result.baselines}
    assert measured.keys() == expected.keys()
    for guess, means in expected.items():
        for name, value in means.items():
            # scikit-image's gaussian reaches beyond 11 pixels by a trace.
            tolerance = 1e-3 if name == "ssim" else 1e-9
            assert measured[guess][name] == pytest.approx(value, rel=tolerance), (guess, name)
    lines = table(result, split="test").splitlines()
    assert lines[0].startswith("test: 5 images") and len(lines) == 5


class Halved:
    """Test pictures whose inputs are half as large: real grey levels, as Pillow shrinks them."""

    evaluation_split = "val"
    is_paired = True
    colour_space = "rgb"

    def __init__(self, pairs):
        self.pairs = pairs
        half = tf.TensorSpec([pairs.size // 2, pairs.size // 2, 3], tf.float32)
        self.example_spec = pairs.example_spec | {"input": half}

    def evaluation(self, split, *, batch):
        def halved(example):
            small = tf.round(tf.nn.avg_pool2d(example["target"] + 1, 2, 2, "VALID") * 127.5) / 127.5 - 1
            return {"input": small, "target": example["target"]}

        return self.pairs.evaluation(split, batch=batch).map(halved)


def test_smaller_inputs_are_enlarged_for_their_baseline(noise_pairs):
    class Enlarged(Darker):
        def translate(self, networks, batch):
            return tf.repeat(tf.repeat(batch["input"], 2, axis=1), 2, axis=2)

    data = Halved(noise_pairs(size=24))
    evaluator = Evaluator(
        task=Enlarged(), devices=devices_of(tf.distribute.get_strategy()), data=data, networks={}
    )
    result = evaluator.evaluate("test", baselines=BASELINES)
    (batch,) = data.evaluation("test", batch=5)
    inputs, targets = (grey_levels(batch[side].numpy()) for side in ("input", "target"))
    enlarged = [
        np.asarray(Image.fromarray(x.astype(np.uint8)).resize((24, 24), Image.Resampling.BICUBIC), np.float64)
        for x in inputs
    ]
    expected = by_hand(np.stack(enlarged), targets)
    # Pillow rounds between its two passes.
    assert result.baselines["input"]["psnr_db"] == pytest.approx(expected["psnr_db"], abs=0.05)
    assert result.baselines["input"]["mae"] == pytest.approx(expected["mae"], abs=0.05)
    assert result.model["psnr_db"] < result.baselines["input"]["psnr_db"] - 1


def test_enlargement_is_pillows_without_its_rounding():
    picture = np.random.default_rng(0).uniform(0, 255, (7, 5)).astype(np.float32)
    ours = imaging.enlarge(tf.constant(picture[None, ..., None]), height=28, width=13)[0, ..., 0]
    pillow = Image.fromarray(picture, mode="F").resize((13, 28), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(ours, np.asarray(pillow), rtol=0, atol=1e-3)
    with tf.GradientTape() as tape:
        x = tf.Variable(picture[None, ..., None], dtype=tf.float64)
        made = imaging.enlarge(x, height=28, width=20)
    assert made.dtype == tf.float64
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(made, x)), 28 * 20, rtol=1e-9)  # weights sum to 1


def test_pictures_of_several_sizes_side_by_side():
    rng = np.random.default_rng(0)
    small, large = rng.integers(0, 256, (2, 2, 3, 1), np.uint8), rng.integers(0, 256, (2, 4, 9, 3), np.uint8)
    grid = join_columns([small, large])
    assert grid.shape == (2, 4, 18, 3)
    np.testing.assert_array_equal(grid[:, :, 9:], large)
    np.testing.assert_array_equal(grid[:, :, :9], np.kron(small, np.ones((1, 2, 3, 3), np.uint8)))


def test_pictures_too_small_for_ssim_are_refused_before_training(noise_pairs):
    with pytest.raises(ConfigurationError, match="8x8 pixels are too small to evaluate"):
        Evaluator(
            task=Darker(),
            devices=devices_of(tf.distribute.get_strategy()),
            data=noise_pairs(size=8),
            networks={},
        )


class RoundTrip(Darker):
    """Its reconstruction is the input less 0.1."""

    def reconstructions(self, networks, batch):
        return {"round_trip": (batch["input"] - 0.1, batch["input"])}


@pytest.mark.parametrize("is_paired", [True, False])
def test_reconstructions_and_no_translations_where_targets_do_not_correspond(noise_pairs, is_paired):
    data = noise_pairs(size=24, is_paired=is_paired)
    set_precision("float32")
    evaluator = Evaluator(
        task=RoundTrip(),
        devices=make_devices("mirrored", cpu_replicas=2),
        data=data,
        networks={},
    )
    result = evaluator.evaluate("test", baselines=BASELINES)
    inputs = np.concatenate([batch["input"].numpy() for batch in data.evaluation("test", batch=2)])
    expected = by_hand(grey_levels(inputs - np.float32(0.1)), grey_levels(inputs))
    for name, value in expected.items():
        assert result.reconstructions["round_trip"][name] == pytest.approx(value, rel=1e-3), name
        assert result.metrics[f"round_trip_{name}"] == result.reconstructions["round_trip"][name]
    assert bool(result.model) == bool(result.baselines) == is_paired
    assert ("psnr_db" in result.metrics) == is_paired
    text = table(result, split="test")
    assert "round_trip" in text and ("model" in text) == is_paired


class NotFinite(RoundTrip):
    """Its outputs, or its reconstructions, are not finite for the brightest input."""

    def __init__(self, *, where, value, brightness):
        super().__init__()
        self.where, self.value, self.brightness = where, value, brightness

    def _spoil(self, where, images, batch):
        is_brightest = tf.reduce_mean(batch["input"], axis=[1, 2, 3], keepdims=True) >= self.brightness
        spoiled = tf.concat([images[:, :1] * self.value, images[:, 1:]], axis=1)
        return tf.where(is_brightest & (where == self.where), spoiled, images)

    def translate(self, networks, batch):
        return self._spoil("output", super().translate(networks, batch), batch)

    def reconstructions(self, networks, batch):
        made, original = super().reconstructions(networks, batch)["round_trip"]
        return {"round_trip": (self._spoil("reconstruction", made, batch), original)}


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize(
    ("where", "value"), [("output", np.nan), ("output", np.inf), ("reconstruction", np.nan)]
)
def test_an_output_that_is_not_finite_is_no_number(noise_pairs, replicas, where, value):
    data = noise_pairs(size=24)
    set_precision("float32")
    inputs = np.concatenate([batch["input"].numpy() for batch in data.evaluation("test", batch=2)])
    brightness = inputs.mean(axis=(1, 2, 3), dtype=np.float64)
    evaluator = Evaluator(
        task=NotFinite(where=where, value=value, brightness=brightness.max() - 1e-5),
        devices=make_devices("mirrored", cpu_replicas=replicas),
        data=data,
        networks={},
    )
    evaluator._translator._batch = 3
    with pytest.raises(NonFiniteOutputError, match=rf"^example {brightness.argmax()} of split 'test', "):
        evaluator.evaluate("test")


def test_nothing_can_follow_a_metric_of_unpaired_data(noise_pairs):
    def experiment(**settings):
        data = noise_pairs(is_paired=False)
        return Experiment(task=Darker(), data=data, total_examples=1, **settings)

    experiment()
    growing = GrowOnPlateau(start=1, maximum=2, patience=1)
    with pytest.raises(ConfigurationError, match=r"GrowOnPlateau.*unpaired.*schedule by position"):
        experiment(batch_schedule=growing)


class Stored:
    """Test pictures of any depth, whose inputs are almost the targets."""

    evaluation_split = "test"
    is_paired = True
    colour_space = "rgb"

    def __init__(self, inputs, targets, value_range):
        low, high = value_range
        self.pictures = {
            role: ((2 * (x.astype(np.float64) - low) / (high - low)) - 1).astype(np.float32)
            for role, x in (("input", inputs), ("target", targets))
        }
        self.example_spec = {
            role: tf.TensorSpec(x.shape[1:], tf.float32) for role, x in self.pictures.items()
        }
        stored = ImageFormat(channels=3, dtype=targets.dtype.name, value_range=value_range)
        self.description = DataDescription(
            dataset="stored",
            train_examples=1,
            evaluation_split="test",
            is_paired=True,
            colour_space="rgb",
            shapes={},
            dtypes={},
            images={"input": stored, "target": stored},
        )

    def evaluation(self, split, *, batch):
        return tf.data.Dataset.from_tensor_slices(self.pictures).batch(batch)


class Unchanged(Darker):
    def translate(self, networks, batch):
        return batch["input"]


@pytest.mark.parametrize(
    ("dtype", "value_range"),
    [("uint16", (0, 65535)), ("uint16", (0, 4095)), ("float32", (-20.0, 60.0)), ("uint8", (0, 18))],
)
def test_metrics_are_at_the_depth_of_the_data(dtype, value_range):
    low, high = value_range
    draws = np.random.default_rng(7)
    targets = draws.uniform(low, high, (3, 20, 24, 3))
    step = 1 if dtype != "float32" else 0.01
    inputs = np.clip(np.round(targets) + step * draws.integers(-5, 6, targets.shape), low, high)
    targets, inputs = np.round(targets).astype(dtype), inputs.astype(dtype)
    evaluator = Evaluator(
        task=Unchanged(),
        devices=devices_of(tf.distribute.get_strategy()),
        data=Stored(inputs, targets, value_range),
        networks={},
    )
    found = evaluator.evaluate("test", baselines=["input"])
    psnr_db = [
        peak_signal_noise_ratio(target.astype(np.float64), made.astype(np.float64), data_range=high - low)
        for target, made in zip(targets, inputs, strict=True)
    ]
    assert found.model["psnr_db"] == pytest.approx(np.mean(psnr_db), abs=1e-4)
    errors = np.abs(inputs.astype(np.float64) - targets)
    assert found.model["mae"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found.baselines["input"] == found.model
    assert f"on [{low:g}, {high:g}]" in table(found, split="test")


class InPrecision(Darker):
    """Joins images with what has the precision of the networks, as colourisation does."""

    def translate(self, networks, batch):
        return batch["input"] - tf.constant(0.3, keras.config.floatx())


def test_images_have_the_precision_of_the_networks(noise_pairs):
    set_precision("float64")
    evaluator = Evaluator(
        task=InPrecision(),
        devices=devices_of(tf.distribute.get_strategy()),
        data=noise_pairs(size=24),
        networks={},
    )
    targets, inputs = (
        np.concatenate([batch[role].numpy() for batch in noise_pairs(size=24).evaluation("test", batch=2)])
        for role in ("target", "input")
    )
    expected = by_hand(grey_levels(inputs.astype(np.float64) - 0.3), grey_levels(targets))
    assert evaluator.evaluate("test").model["mse"] == pytest.approx(expected["mse"], rel=1e-9)
