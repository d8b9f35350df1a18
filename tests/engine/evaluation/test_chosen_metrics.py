"""Metrics that a user adds to the usual ones, and dropout in evaluation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import imaging
from data.imaging.metric_names import MORE_METRICS, higher_is_better, needs_targets
from engine.distribution.devices import devices_of, make_devices
from engine.errors import ConfigurationError
from engine.evaluation.baselines import BASELINES
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.image_table import image_table
from engine.evaluation.text_table import table
from engine.experiment import Experiment
from engine.feature_extractor import FeatureExtractor
from models.application_features import ApplicationFeatures
from models.networks.dropout import Dropout
from tests.engine.evaluation.test_evaluator import Darker, Halved, RoundTrip, grey_levels
from tests.helpers.scale_task import Scale


class SquaredError:
    """Takes the place of a learned metric."""

    def build(self):
        def measure(images, references, value_range=None):
            x, y, _ = imaging.pair_in_float64(images, references, value_range)
            return tf.cast(tf.reduce_mean((x - y) ** 2, axis=[1, 2, 3]), tf.float32)

        return measure


class OnlyGrey(FeatureExtractor):
    """Takes grey images only."""

    identity = "only grey"

    def build(self):
        def features(images, value_range=None):
            raise ValueError("only grey; change it")

        return features


def evaluator(data, task=None, **settings):
    settings = {"devices": devices_of(tf.distribute.get_strategy()), "networks": {}} | settings
    return Evaluator(task=task or Darker(), data=data, **settings)


def pictures(data):
    """Outputs of `Darker` and targets as uint8."""
    batches = list(data.evaluation("test", batch=5))
    outputs = np.concatenate([batch["input"].numpy() for batch in batches]) - np.float32(0.3)
    targets = np.concatenate([batch["target"].numpy() for batch in batches])
    return grey_levels(outputs), grey_levels(targets)


def test_chosen_metrics_of_each_image_are_in_every_table(noise_pairs):
    data = noise_pairs(size=164)
    of_task = evaluator(data, more_metrics=MORE_METRICS, lpips=SquaredError())
    found = of_task.evaluate("test", baselines=["input"])
    names = (*MORE_METRICS, "lpips")
    assert tuple(found.metrics) == of_task.metric_names == ("mae", "mse", "rmse", "psnr_db", "ssim", *names)
    outputs, targets = pictures(data)
    foreground = outputs >= 127.5, targets >= 127.5
    shared, either = (
        combine(*foreground).sum(axis=(1, 2)) for combine in (np.logical_and, np.logical_or)
    )  # [B, C]
    sizes = sum(x.sum(axis=(1, 2)) for x in foreground)
    luma = [x @ np.array([65.481, 128.553, 24.966]) / 255 + 16 for x in (outputs, targets)]
    expected = {
        "mask_iou": np.mean(shared / either, axis=1),
        "mask_dice": np.mean(2 * shared / sizes, axis=1),
        "pixel_accuracy": np.all(foreground[0] == foreground[1], axis=3).mean(axis=(1, 2)),
        "luma_psnr_db": 10 * np.log10(255**2 / np.mean((luma[0] - luma[1]) ** 2, axis=(1, 2))),
        "lpips": np.mean((outputs - targets) ** 2, axis=(1, 2, 3)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found.image_values[name], values, rtol=1e-4, err_msg=name)
    assert image_table(found).splitlines()[0].endswith(",".join(names))
    text = table(found, split="test")
    assert f"{found.model['mask_dice']:.4f}" in text and f"{found.baselines['input']['ms_ssim']:.4f}" in text
    assert "luma metrics: Y' of BT.601, of whole images" in text


def test_luma_leaves_out_a_border_of_the_factor_of_the_enlargement(noise_pairs):
    class Enlarged(Darker):
        def translate(self, networks, batch):
            return tf.repeat(tf.repeat(batch["input"], 2, axis=1), 2, axis=2) - 0.3

    data = Halved(noise_pairs(size=24))
    found = evaluator(data, Enlarged(), more_metrics=["luma_psnr_db"]).evaluate("test")
    (batch,) = data.evaluation("test", batch=5)
    outputs = np.kron(batch["input"].numpy(), np.ones((1, 2, 2, 1), np.float32)) - np.float32(0.3)
    luma = [
        grey_levels(x)[:, 2:-2, 2:-2] @ np.array([65.481, 128.553, 24.966]) / 255
        for x in (outputs, batch["target"].numpy())
    ]
    expected = 10 * np.log10(255**2 / np.mean((luma[0] - luma[1]) ** 2, axis=(1, 2)))
    np.testing.assert_allclose(found.image_values["luma_psnr_db"], expected, rtol=1e-4)
    assert "without a border of 2 pixels" in table(found, split="test")


def test_reconstructions_are_measured_by_chosen_metrics_too(noise_pairs):
    of_task = evaluator(noise_pairs(size=24, is_paired=False), RoundTrip(), more_metrics=["mask_iou"])
    found = of_task.evaluate("test")
    assert "round_trip_mask_iou" in found.metrics and tuple(found.metrics) == of_task.metric_names
    assert f"{found.metrics['round_trip_mask_iou']:.4f}" in table(found, split="test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["vmaf"]}, r"metrics = 'vmaf': unknown; use some of ms_ssim"),
        ({"metrics": "ms_ssim"}, r"must be a list"),
        ({"metrics": ["psnr_db"]}, r"is measured always"),
        ({"metrics": ["lpips"]}, r"set Experiment.lpips"),
        ({"best_metric": "mask_iou"}, r"best_metric = 'mask_iou': .* add it to Experiment.metrics"),
        ({"best_metric": "lpips"}, r"set Experiment.lpips to its weights"),
    ],
)
def test_metrics_that_cannot_be_meant_are_refused(noise_pairs, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Experiment(task=Darker(), data=noise_pairs(), total_examples=1, **settings)


def test_images_that_a_metric_does_not_take_are_refused_before_training(
    small_pix2pix, noise_pairs, make_trainer
):
    trainer = make_trainer(small_pix2pix(), noise_pairs(size=32), metrics=["ms_ssim"], total_examples=2)
    with pytest.raises(ConfigurationError, match=r"'ms_ssim': .* at least 161 x 161 pixels.*; leave it out"):
        trainer.run()
    assert trainer.step == 0


def test_features_that_cannot_be_computed_are_refused_before_training(make_trainer, noise_pairs, tmp_path):
    missing = ApplicationFeatures(application="MobileNetV2", weights=str(tmp_path / "none.h5"))
    for extractor, message in ((missing, "there is no such file"), (OnlyGrey(), "only grey; change it")):
        trainer = make_trainer(Scale(), noise_pairs(size=16), total_examples=4, feature_extractor=extractor)
        with pytest.raises(ConfigurationError, match=message):
            trainer.run()
        assert trainer.examples == 0


def test_every_metric_says_which_way_is_better_and_can_choose_a_checkpoint(noise_pairs):
    for name in MORE_METRICS:
        assert higher_is_better(name) and higher_is_better(f"cycle_input_{name}") and needs_targets(name)
        chosen = Experiment(
            task=Darker(), data=noise_pairs(), total_examples=1, metrics=[name], best_metric=name
        )
        assert chosen.chosen_metric == name
    assert not higher_is_better("lpips")


class Dropped(Darker):
    """Its network is nothing but dropout."""

    def networks(self, example):
        image = keras.Input((None, None, 3))
        return {"generator": keras.Model(image, Dropout(0.5, name="dropout")(image))}

    def translate(self, networks, batch):
        return networks["generator"](batch["input"])


def test_dropout_in_evaluation_is_the_same_on_any_number_of_replicas(noise_pairs):
    task, found = Dropped(), []
    for replicas in (1, 2, 3):
        devices = make_devices("mirrored", cpu_replicas=replicas)
        with devices.strategy.scope():
            networks = task.networks({})
        for dropout in (True, False):
            settings = {"devices": devices, "networks": networks, "dropout": dropout}
            of_task = evaluator(noise_pairs(size=24), task, **settings)
            of_task._translator._batch = 4  # 5 images: 4 and 1
            found.append(of_task.evaluate("test", baselines=BASELINES[:1]))
    with_dropout, without = found[::2], found[1::2]
    for each in with_dropout[1:]:
        np.testing.assert_array_equal(each.image_values["psnr_db"], with_dropout[0].image_values["psnr_db"])
    assert without[0].model == without[0].baselines["input"] != with_dropout[0].model
