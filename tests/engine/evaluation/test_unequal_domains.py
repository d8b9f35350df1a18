"""Of unpaired domains of unequal size, every image counts once."""

import numpy as np
import pytest
from PIL import Image

from data.prepare import prepare
from data.unpaired import UnpairedImages
from engine.distribution.devices import make_devices
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.feature_sets import FeatureSet
from engine.evaluation.random_features import RandomFeatures, random_features
from tests.engine.evaluation.test_evaluator import Darker, by_hand, grey_levels

COUNTS = {"A": 7, "B": 3}


class BothWays(Darker):
    """Translations and reconstructions that are darker by what no other has."""

    translates_back = True

    def translate(self, networks, batch):
        return batch["input"] - 0.1

    def translate_back(self, networks, batch):
        return batch["target"] - 0.25

    def reconstructions(self, networks, batch):
        return {f"cycle_{role}": (batch[role] - 0.3, batch[role]) for role in ("input", "target")}


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """A prepared data set, and its test images by domain."""
    folder = tmp_path_factory.mktemp("unequal")
    images = {}
    for domain, count in COUNTS.items():
        for split, number in (("train", 2), ("test", count)):
            (folder / "source" / f"{split}{domain}").mkdir(parents=True)
            pixels = np.random.default_rng(number).integers(60, 256, (number, 32, 32, 3), np.uint8)
            for k, image in enumerate(pixels):
                Image.fromarray(image).save(folder / "source" / f"{split}{domain}" / f"{k}.png")
        images[domain] = pixels
    data_dir = str(folder / "datasets")
    prepare(layout="unpaired", source=folder / "source", name="unequal", data_dir=data_dir)
    return data_dir, images


@pytest.mark.parametrize(("direction", "domains"), [("AtoB", "AB"), ("BtoA", "BA")])
@pytest.mark.parametrize("replicas", [1, 3])
def test_every_image_counts_once(unequal, direction, domains, replicas):
    data_dir, images = unequal
    data = UnpairedImages(
        dataset="unequal", data_dir=data_dir, load_size=32, crop_size=32, direction=direction
    )
    evaluator = Evaluator(
        task=BothWays(),
        devices=make_devices("mirrored", cpu_replicas=replicas),
        data=data,
        networks={},
        extractor=RandomFeatures(),
    )
    evaluator._translator._batch = 4
    found = evaluator.evaluate("test")
    assert found.examples == 7
    signed = {
        role: images[domain] / 127.5 - 1 for role, domain in zip(("input", "target"), domains, strict=True)
    }

    def made(role, less):
        return grey_levels(signed[role].astype(np.float32) - np.float32(less))

    for role in ("input", "target"):
        expected = by_hand(made(role, 0.3), grey_levels(signed[role]))
        for metric, value in expected.items():
            assert found.reconstructions[f"cycle_{role}"][metric] == pytest.approx(value, rel=1e-3), metric
    for way, source, less, target in (("", "input", 0.1, "target"), ("back_", "target", 0.25, "input")):
        sets = FeatureSet(), FeatureSet()
        for each, pictures in zip(sets, (made(source, less), grey_levels(signed[target])), strict=True):
            each.add(random_features(pictures.astype(np.uint8)).numpy())
        for name, value in sets[0].distances(sets[1]).items():
            assert found.distances[f"{way}{name}"] == pytest.approx(value, rel=1e-3, abs=1e-4), (way, name)
