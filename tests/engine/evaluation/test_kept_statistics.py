"""Statistics of real images are computed once for a data set, and only for the same examples."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.pairs import PairedImages
from data.prepare import prepare
from engine.distribution.devices import devices_of
from engine.evaluation.baselines import BASELINES
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.frechet_distance import FeatureMoments, frechet_distance
from engine.evaluation.kernel_distance import kernel_distance
from engine.evaluation.random_features import RandomFeatures, random_features
from tests.engine.evaluation.test_evaluator import Darker


class Counted(RandomFeatures):
    """Counts the images whose features are computed."""

    def build(self):
        self.counter = tf.Variable(0)

        def count(images, value_range=None):
            self.counter.assign_add(tf.shape(images)[0])
            return random_features(images, value_range)

        return count


@pytest.fixture
def prepare_pairs(tmp_path):
    def make(seed=0):
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        for split, number in (("train", 6), ("test", 4)):
            (tmp_path / "source" / split).mkdir(parents=True)
            for k in range(number):
                pixels = np.random.default_rng([seed, number, k]).integers(0, 256, (32, 64, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "source" / split / f"{k}.png")
        prepare(
            layout="side_by_side",
            source=tmp_path / "source",
            name="mine",
            data_dir=str(tmp_path / "datasets"),
            overwrite=True,
        )

    return make


def evaluate(tmp_path, **settings):
    """Returns the evaluation of a constant task, and of how many images features were computed."""
    settings = {"load_size": 32, "crop_size": 32} | settings
    extractor = Counted()
    evaluator = Evaluator(
        task=Darker(),
        devices=devices_of(tf.distribute.get_strategy()),
        data=PairedImages(dataset="mine", data_dir=str(tmp_path / "datasets"), **settings),
        networks={},
        extractor=extractor,
    )
    return evaluator.evaluate("test", baselines=BASELINES), int(extractor.counter)


def kept(tmp_path):
    return sorted(os.listdir(tmp_path / "datasets" / ".cache"))


def test_real_images_are_measured_once_for_all_runs(tmp_path, prepare_pairs):
    prepare_pairs()
    first, images = evaluate(tmp_path)
    assert images == 4 + 4 and len(kept(tmp_path)) == 4  # the mean target, two baselines, and features
    second, images = evaluate(tmp_path)
    assert images == 4 and len(kept(tmp_path)) == 4
    assert second.metrics == first.metrics and second.baselines == first.baselines
    _, images = evaluate(tmp_path, direction="BtoA")
    assert images == 8 and len(kept(tmp_path)) == 8
    prepare_pairs(seed=1)  # removes nothing that was kept, and uses none of it
    third, images = evaluate(tmp_path)
    assert images == 8 and third.metrics != first.metrics


def test_each_seed_has_the_mean_target_of_its_own_part_of_the_training_split(tmp_path, prepare_pairs):
    prepare_pairs()
    part = {"train_fraction": 0.5}
    first, second = (evaluate(tmp_path, seed=seed, **part)[0].baselines for seed in (1, 2))
    assert first["mean target"] != second["mean target"]
    shutil.rmtree(tmp_path / "datasets" / ".cache")
    assert evaluate(tmp_path, seed=2, **part)[0].baselines == second


def test_the_distances_are_those_of_the_pictures(tmp_path, prepare_pairs):
    prepare_pairs()
    found, _ = evaluate(tmp_path)
    pairs = [np.asarray(Image.open(tmp_path / "source" / "test" / f"{k}.png")) for k in range(4)]
    targets = np.stack([pair[:, 32:] for pair in pairs])
    signed = np.stack([pair[:, :32] for pair in pairs]).astype(np.float32) / 127.5 - 1
    outputs = np.clip(np.floor((signed - np.float32(0.3) + 1) * 127.5 + 0.5), 0, 255).astype(np.uint8)
    features = [random_features(x).numpy() for x in (outputs, targets)]
    assert found.distances["kid"] == pytest.approx(kernel_distance(*features).value, rel=1e-3)
    moments = [FeatureMoments(x.shape[1]) for x in features]
    for each, rows in zip(moments, features, strict=True):
        each.add(rows)
    assert found.distances["fid"] == pytest.approx(frechet_distance(*moments), rel=1e-3)


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path, prepare_pairs):
    prepare_pairs()
    (tmp_path / "datasets" / ".cache").write_text("a file where the folder would be")
    first, _ = evaluate(tmp_path)
    again, images = evaluate(tmp_path)
    assert images == 8 and again.metrics == first.metrics


def test_a_damaged_file_is_computed_anew(tmp_path, prepare_pairs):
    prepare_pairs()
    first, _ = evaluate(tmp_path)
    for name in kept(tmp_path):
        path = tmp_path / "datasets" / ".cache" / name
        path.write_bytes(path.read_bytes()[:100])
    again, images = evaluate(tmp_path)
    assert images == 8 and again.metrics == first.metrics
