"""Data sets of one pair or one image, for deliberate overfitting."""

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.pairs import PairedImages
from data.prepare import prepare
from data.single import SingleImages
from data.unpaired import UnpairedImages

SETTINGS = {"dataset": "made", "load_size": 0, "crop_size": 16}


@pytest.fixture
def prepared(tmp_path):
    """Prepares images: prepared(layout, *paths, **settings) -> folder of the data set."""

    def run(layout, *paths, **settings):
        for seed, name in enumerate(paths):
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(0, 256, (16, 32, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        prepare(layout=layout, source=tmp_path / "source", name="made", data_dir=tmp_path, **settings)
        return str(tmp_path)

    return run


def batch_of(source):
    return next(iter(source.batches(position_examples=0, global_batch=1)))


@pytest.mark.parametrize(
    "layout, paths, kind, split",
    [
        ("side_by_side", ["1.png"], PairedImages, "train"),
        ("paired", ["A/1.png", "B/1.png"], PairedImages, "train"),
        ("paired", ["train/A/1.png", "train/B/1.png"], PairedImages, "train"),
        ("single", ["1.png"], SingleImages, "train"),
        ("unpaired", ["A/1.png", "A/2.png", "A/3.png", "B/1.png"], UnpairedImages, "trainB"),
        ("unpaired", ["A/1.png", "B/1.png", "B/2.png", "B/3.png"], UnpairedImages, "trainA"),
    ],
)
def test_nothing_is_held_out_on_request(prepared, layout, paths, kind, split):
    data_dir = prepared(layout, *paths)
    refusal = f"the only example of '{split}' would be held out.*or prepare it with --val_fraction=0"
    with pytest.raises(DataError, match=refusal):
        _ = kind(data_dir=data_dir, **SETTINGS).splits
    prepared(layout, val_fraction=0, test_fraction=0, overwrite=True)
    source = kind(data_dir=data_dir, **SETTINGS)
    assert source.splits == {"train": 3 if layout == "unpaired" else 1}  # of the larger domain
    assert source.evaluation_split == "train"
    assert batch_of(source)["input"].shape[0] == 1
    evaluated = list(source.evaluation("train", batch=4))
    assert sum(len(batch["name"]) for batch in evaluated) == source.splits["train"]


def test_a_val_split_is_evaluated_whatever_is_held_out(prepared):
    data_dir = prepared("single", "train/1.png", "val/2.png", val_fraction=0)
    assert SingleImages(data_dir=data_dir, **SETTINGS).evaluation_split == "val"


def test_a_part_is_held_out_by_default(prepared):
    data_dir = prepared("single", *(f"{k}.png" for k in range(4)))
    source = SingleImages(data_dir=data_dir, **SETTINGS)
    assert source.splits == {"train": 3, "train_held_out": 1}
    assert source.evaluation_split == "train_held_out"
