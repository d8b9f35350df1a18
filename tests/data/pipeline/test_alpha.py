"""Whether a channel is transparency is recorded when images are prepared, not guessed from their number."""

import json
import os

import numpy as np
import pytest
import tifffile

from data import prepare
from data.pairs import PairedImages
from data.tfrecords import fingerprint, prepared_dataset

TRANSPARENT = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
FOUR_BANDS = {"photometric": "minisblack", "extrasamples": ["unspecified"] * 3}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_fourth_channel_is_transparency_only_if_the_files_say_so(tmp_path, dtype):
    for side, tags in (("A", TRANSPARENT), ("B", FOUR_BANDS)):
        (tmp_path / "source" / side).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).random((16, 16, 4)) * (255 if dtype == np.uint8 else 1)
            path = tmp_path / "source" / side / f"{number}.tif"
            tifffile.imwrite(path, pixels.astype(dtype), planarconfig="contig", metadata=None, **tags)
    data_dir = str(tmp_path / "datasets")
    prepare.prepare(layout="paired", source=tmp_path / "source", name="mine", data_dir=data_dir)

    def alpha(direction):
        data = PairedImages(dataset="mine", data_dir=data_dir, load_size=0, crop_size=16, direction=direction)
        assert {image.channels for image in data.description.images.values()} == {4}
        return data.description.images["input"].alpha, data.description.images["target"].alpha

    assert alpha("AtoB") == (True, False) and alpha("BtoA") == (False, True)

    # Data sets of older code say nothing: as they were taken then. Runs on them continue.
    opened = prepared_dataset.open_dataset("mine", data_dir)
    path = os.path.join(opened.directory, "metadata.json")
    with open(path) as file:
        metadata = json.load(file)
    assert metadata.pop("alpha") == ["A"]
    with open(path, "w") as file:
        json.dump(metadata, file)
    assert alpha("AtoB") == ((True, True) if dtype == np.uint8 else (False, False))
    older = prepared_dataset.open_dataset("mine", data_dir)
    assert fingerprint.fingerprint(older) == fingerprint.fingerprint(opened)
