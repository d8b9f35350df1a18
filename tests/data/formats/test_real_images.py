"""Real pictures, where a folder of them is named: stored as they are, or refused by name."""

import pathlib
import re

import imagecodecs
import numpy as np
import pytest
import skimage.io
from PIL import Image

from data import prepare
from data.errors import DataError
from data.formats import image_reader
from data.formats.raw_video import VideoFormat
from data.pairs import PairedImages
from data.tfrecords import image_decoding, image_encoding


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


GREY, COLOUR, COLOUR_AND_ALPHA = 1, 3, 4
ODD_FILES = {
    # Name: (height, width, channels, dtype), or why it is refused.
    "_blobs_3d_fiji_skeleton.tif": "holds 30 pages",
    "block.png": (10, 10, COLOUR, "uint8"),
    "bw_text.png": (333, 516, COLOUR, "uint8"),
    "checker_bilevel.png": (10, 10, GREY, "uint8"),  # one bit
    "chessboard_GRAY.png": (200, 200, GREY, "uint8"),
    "chessboard_GRAY_U16.tif": (200, 200, GREY, "uint16"),
    "chessboard_GRAY_U16B.tif": (200, 200, GREY, "uint16"),  # high bytes first
    "chessboard_RGB.png": (200, 200, COLOUR, "uint16"),
    "clock_motion.png": (300, 400, GREY, "uint8"),
    "color.png": (370, 371, COLOUR, "uint8"),
    "foo3x5x4indexed.png": (3, 5, COLOUR_AND_ALPHA, "uint8"),  # a palette with transparency
    "green_palette.png": (240, 320, COLOUR, "uint8"),
    "horse.png": (328, 400, COLOUR_AND_ALPHA, "uint8"),
    "logo.png": (500, 500, COLOUR, "uint8"),  # its alpha is opaque
    "multipage.tif": "holds 2 pages",
    "multipage_rgb.tif": "holds 2 pages",
    "page.png": (191, 384, GREY, "uint8"),
    "palette_color.png": (10, 10, COLOUR, "uint8"),
    "palette_gray.png": (10, 10, COLOUR, "uint8"),
    "phantom.png": (400, 400, COLOUR, "uint8"),
    "text.png": (172, 448, GREY, "uint8"),
    "truncated.jpg": "damaged image",
}


def read(path):
    """(kind, pixels) of a file, having checked that what is stored gives the same pixels."""
    ref, settings = image_reader.ImageRef(str(path)), {"video": VideoFormat(), "max_pixels": 2_000_000}
    kind = image_reader.read_info(ref, **settings)
    pixels = image_reader.read_pixels(ref, **settings)
    assert kind == image_reader.decode(ref, **settings)[0]
    stored = image_encoding.common_format([kind])
    encoded = image_encoding.encode(ref, stored=stored, **settings)
    decoded = image_decoding.decode_image(encoded.value, channels=stored.channels, dtype=stored.dtype)
    np.testing.assert_array_equal(decoded, pixels)
    assert encoded.kept == (path.suffix in (".png", ".jpg"))
    return kind, pixels


def shown(path, kind):
    """What an independent reader makes of a file: [H, W, C] of the kind."""
    if path.suffix == ".tif":
        with Image.open(path) as image:
            return np.asarray(image).reshape(kind.height, kind.width, -1)
    if kind.dtype == "uint16":
        return imagecodecs.png_decode(path.read_bytes())  # Pillow reads only the high bytes of colours
    mode = {GREY: "L", COLOUR: "RGB", COLOUR_AND_ALPHA: "RGBA"}[kind.channels]
    with Image.open(path) as image:
        return np.asarray(image.convert(mode)).reshape(kind.height, kind.width, -1)


def test_the_table_of_odd_files_is_complete(real_images):
    assert {path.name for path in pathlib.Path(real_images, "odd_files").iterdir()} == ODD_FILES.keys()


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_are_read_right_or_refused_by_name(real_images, name):
    path, expected = pathlib.Path(real_images, "odd_files", name), ODD_FILES[name]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {expected}") as raised:
            read(path)
        assert "\n" not in str(raised.value)
        return
    kind, pixels = read(path)
    assert (kind.height, kind.width, kind.channels, kind.dtype) == expected
    assert kind.alpha == (kind.channels == COLOUR_AND_ALPHA)
    np.testing.assert_array_equal(pixels, shown(path, kind))


def test_photos(real_images):
    for path in sorted(pathlib.Path(real_images, "photos").iterdir()):
        kind, pixels = read(path)
        np.testing.assert_array_equal(pixels, shown(path, kind), err_msg=str(path))
        np.testing.assert_array_equal(pixels.squeeze(), skimage.io.imread(path), err_msg=str(path))
