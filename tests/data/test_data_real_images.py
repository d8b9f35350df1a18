"""Real pictures, where a folder of them is named: stored as they are, or refused by name."""

import pathlib

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from data import decoding, pictures, prepare
from data.errors import DataError
from data.pairs import PairedImages


def link_some(real_images, folder, source, count=6):
    """Links the first files of a folder of real images into `source`."""
    source.mkdir(parents=True)
    for path in sorted(pathlib.Path(real_images, folder).iterdir())[:count]:
        (source / path.name).symlink_to(path)


def test_facades_keep_their_bytes_and_pixels(real_images, tmp_path):
    for split in ("train", "test"):
        link_some(real_images, f"facades/{split}", tmp_path / "source" / split)
    report = prepare.prepare(
        layout="side_by_side", source=tmp_path / "source", name="facades", data_dir=tmp_path / "sets"
    )
    assert (report.kept, report.re_encoded) == (12, 0)
    source = PairedImages(dataset="facades", data_dir=str(tmp_path / "sets"), load_size=0, direction="BtoA")
    batch = next(iter(source.evaluation("test", batch=6)))
    for name, label, photo in zip(*(batch[k].numpy() for k in ("name", "input", "target")), strict=True):
        with Image.open(tmp_path / "source" / "test" / f"{name.decode()}.jpg") as image:
            shown = np.asarray(image)
        np.testing.assert_array_equal(np.round((photo + 1) * 127.5), shown[:, :256])
        np.testing.assert_array_equal(np.round((label + 1) * 127.5), shown[:, 256:])


def test_roadscene_pairs_a_grey_side_with_a_coloured_one(real_images, tmp_path):
    for side in ("infrared", "visible"):
        link_some(real_images, f"roadscene/train/{side}", tmp_path / "source" / "train" / side)
    prepare.prepare(layout="paired", source=tmp_path / "source", name="road", data_dir=tmp_path / "sets")
    source = PairedImages(dataset="road", data_dir=str(tmp_path / "sets"))
    assert source.example_spec["input"].shape == (256, 256, 1)
    assert source.example_spec["target"].shape == (256, 256, 3)
    batch = next(iter(source.batches(position_examples=0, global_batch=5)))
    assert sorted(batch["id"].numpy()) == list(range(5))


@pytest.mark.parametrize("folder", ["odd_files", "photos"])
def test_whatever_is_found_is_read_right_or_refused_by_name(real_images, folder):
    for path in sorted(pathlib.Path(real_images, folder).iterdir()):
        try:
            header = pictures.read_header(path)
            stored, _ = pictures.encode(path, channels=header.channels)
        except DataError as error:
            assert str(path) in str(error)
            assert must_be_refused(path), error
            continue
        pixels = decoding.decode_image(stored, channels=header.channels)
        with Image.open(path) as image:
            shown = np.asarray(image.convert("L" if header.channels == 1 else "RGB"))
        np.testing.assert_array_equal(np.squeeze(pixels), shown, err_msg=str(path))


def must_be_refused(path):
    """Whether a file is none of the kinds that are read: deep, transparent, damaged, or TIFF."""
    try:
        with Image.open(path) as image:
            image.load()
            deep = path.suffix == ".png" and path.read_bytes()[24] > 8
            clear = "A" in image.mode or "transparency" in image.info
            return image.format == "TIFF" or deep or clear
    except (UnidentifiedImageError, OSError):
        return True
