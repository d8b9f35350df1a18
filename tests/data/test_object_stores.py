"""Files and data sets in an object store: ram:// returns what a disk returns."""

import io
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from data import gfile
from data.errors import DataError
from data.formats import image_reader
from data.formats.raw_video import VideoFormat
from data.pairs import PairedImages
from data.preparation import image_set_builder, tfds_catalog, tfds_writer
from data.prepare import prepare
from data.supply import Supply
from data.tfrecords import prepared_dataset

SIZE = {"height": 36, "width": 40}


def pixels(seed, height=36, width=40):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(array, encoding, **options):
    contents = io.BytesIO()
    if encoding == "tiff":
        tifffile.imwrite(contents, array, photometric="rgb", **options)
    else:
        Image.fromarray(array).save(contents, encoding, **options)
    return contents.getvalue()


def write(path, contents):
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(contents)


def both(tmp_path, name):
    """A folder on the disk and one in a store."""
    return str(tmp_path / name), f"ram://{tmp_path.name}/{name}"


@pytest.fixture(autouse=True)
def nothing_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    yield
    assert os.listdir(tmp_path / "cwd") == []  # no folder "ram:"


VIDEO = VideoFormat(size=(8, 6))
PICTURES = {
    "deep.png": encoded(pixels(1), "png"),
    "photo.jpg": encoded(pixels(2), "jpeg"),
    "page.tif": encoded(pixels(3), "tiff"),
    "tiles.tif": encoded(pixels(4, 64, 64), "tiff", tile=(32, 32), compression="zlib"),
    "moving.gif": encoded(pixels(5), "gif"),
    "raw.yuv": pixels(6, 1, 48).tobytes()[: 2 * 72],
    "long.y4m": b"YUV4MPEG2 W8 H6 C420jpeg\n" + 2 * (b"FRAME\n" + pixels(7, 1, 24).tobytes()),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_those_of_a_disk(tmp_path, name):
    kinds, decoded = [], []
    for folder in both(tmp_path, "pictures"):
        write(f"{folder}/{name}", PICTURES[name])
        ref = image_reader.ImageRef(f"{folder}/{name}")
        frames = image_reader.number_of_frames(ref.path, VIDEO)
        ref = ref._replace(frame=frames - 1)
        kinds.append((frames, image_reader.read_info(ref, video=VIDEO, max_pixels=10**6)))
        decoded.append(image_reader.decode(ref, video=VIDEO, max_pixels=10**6))
    assert kinds[0] == kinds[1] and kinds[0][0] == (2 if name.endswith(("yuv", "y4m")) else 1)
    np.testing.assert_array_equal(decoded[0][1], decoded[1][1])
    assert decoded[0][2] == decoded[1][2]


@pytest.mark.parametrize(
    "name, contents, match",
    [
        ("empty.png", b"", "empty.png: is empty"),
        ("cut.png", PICTURES["deep.png"][:200], "cut.png: damaged image"),
        ("cut.tif", PICTURES["page.tif"][:300], "cut.tif: "),
        ("none.png", None, "none.png: does not exist"),
        ("none.yuv", None, "none.yuv: does not exist"),
    ],
)
def test_pictures_that_cannot_be_read_are_named(tmp_path, name, contents, match):
    path = f"ram://{tmp_path.name}/{name}"
    if contents is not None:
        write(path, contents)
    with pytest.raises(DataError, match=match) as raised:
        image_reader.read_pixels(image_reader.ImageRef(path), video=VIDEO, max_pixels=10**6)
    assert "\n" not in str(raised.value)


def test_a_file_of_a_store_reads_as_one_of_a_disk(tmp_path):
    contents = np.random.default_rng(0).bytes(300_000)
    disk, store = (f"{folder}/bytes" for folder in both(tmp_path, "files"))
    opened = []
    for path in (disk, store):
        write(path, contents)
        opened.append(gfile.open_binary(path))
    rng = np.random.default_rng(1)
    for _ in range(200):
        whence, place, length = int(rng.integers(3)), int(rng.integers(200_000)), int(rng.integers(150_000))
        offset = {0: place, 1: place // 100, 2: -place}[whence]
        found = [(file.seek(offset, whence), file.read(length), file.readline(50)) for file in opened]
        assert found[0] == found[1]
    assert opened[0].read() == opened[1].read() and opened[1].read(1) == b""
    assert gfile.size_and_mtime(store)[0] == len(contents)
    for file in opened:
        file.close()


TREE = [
    "a.png",
    "b.png",
    ".hidden.png",
    "deep/c.png",
    "deep/er/d.png",
    ".dark/e.png",
    "deep/f.jpg",
    "[x].png",
]


@pytest.mark.parametrize(
    "pattern",
    "*.png a.png ?.png no.png **/*.png deep/**/*.png */* */er/d.png d*/**/d.* [ab].png [[]x].png "
    "nowhere/*.png **/er/*.png .*.png".split(),
)
def test_patterns_match_what_glob_matches(tmp_path, pattern):
    found = []
    for folder in both(tmp_path, "tree"):
        for name in TREE:
            write(f"{folder}/{name}", b"x")
        found.append([path.removeprefix(folder) for path in gfile.glob(f"{folder}/{pattern}")])
    assert found[0] == found[1]


def layouts(root):
    """Writes a source of every layout below a root: layout -> further arguments of `prepare`."""
    for index in range(4):
        write(f"{root}/wide/{index}.png", encoded(pixels(index, 36, 80), "png"))
        for side in "AB":
            image = encoded(pixels(100 * (side == "B") + index), "png")
            write(f"{root}/two/{side}/{index}.png", image)
            write(f"{root}/mixed/{index}_{side.lower()}.jpg", image)
            write(f"{root}/splits/train{side}/{index}.png", image)
        write(f"{root}/maps/{index}.png", encoded(pixels(200 + index), "png"))
        write(
            f"{root}/labelled/{'cat' if index % 2 else 'dog/more'}/{index}.png", encoded(pixels(index), "png")
        )
    write(f"{root}/two/notes.txt", b"no picture")
    write(f"{root}/lists/train.txt", "\ufeff0\n1.png\n2\n".encode())
    write(f"{root}/lists/test.txt", b"3\n")
    write(f"{root}/classes.csv", b"name,class\n0,day\n1,night\n2,day\n3,day\n")
    of_two = {"layout": "paired", "source": f"{root}/two", "split_lists": f"{root}/lists"}
    return {
        "wide": {"layout": "side_by_side", "source": f"{root}/wide", "group": "([0-9])"},
        "two": of_two | {"side_classes": f"{root}/classes.csv", "side_map": f"{root}/maps"},
        "mixed": {"layout": "paired", "source": f"{root}/mixed", "match_a": "(.*)_a", "match_b": "(.*)_b"},
        "splits": {"layout": "unpaired", "source": f"{root}/splits"},
        "maps": {"layout": "single", "source": f"{root}/maps"},
        "labelled": {"layout": "labelled", "source": f"{root}/labelled"},
    }


def read(path):
    with gfile.open_binary(path) as file:
        return file.read()


def contents_of(directory):
    """File -> contents, of a data set; descriptions without the times and places in them."""
    return {
        name: read(f"{directory}/{name}")
        for name in gfile.list_dir(directory)
        if name != prepared_dataset.DESCRIPTION
    }


def test_every_layout_gives_the_data_set_of_a_disk(tmp_path):
    disk, store = both(tmp_path, "roots")
    for (name, on_disk), in_store in zip(layouts(disk).items(), layouts(store).values(), strict=True):
        made = {}
        for root, arguments in ((disk, on_disk), (store, in_store)):
            report = prepare(name=name, data_dir=f"{root}/datasets", readers=2, **arguments)
            assert report.directory == f"{root}/datasets/{name}/1.0.0"
            opened = prepared_dataset.open_dataset(name, f"{root}/datasets")
            made[root] = (report.examples, report.features, contents_of(report.directory), opened.splits)
        assert made[disk][:3] == made[store][:3]
        moved = repr(made[disk][3]).replace(disk, store)
        assert moved == repr(made[store][3])
    assert gfile.list_dir(f"{store}/datasets") == sorted(layouts(store))  # nothing incomplete is left


@pytest.fixture
def stored(tmp_path):
    """(folder of data sets, source) in a store, in which "made" is prepared."""
    source, data_dir = f"ram://{tmp_path.name}/source", f"ram://{tmp_path.name}/datasets"
    for index in range(5):
        write(f"{source}/{index}.png", encoded(pixels(index, 36, 80), "png"))
    prepare(layout="side_by_side", source=source, name="made", data_dir=data_dir, readers=2)
    return data_dir, source


def test_a_data_set_is_replaced_only_by_a_whole_one(stored, monkeypatch):
    data_dir, source = stored
    again = {"layout": "side_by_side", "source": source, "name": "made", "data_dir": data_dir}
    before = contents_of(f"{data_dir}/made/1.0.0")
    with pytest.raises(tfds_writer.AlreadyPreparedError, match="already exists; add --overwrite"):
        prepare(**again)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def interrupted(self, *args):
            raise KeyboardInterrupt

        patched.setattr(image_set_builder.ImageSetBuilder, "_write_split", interrupted)
        prepare(**again, overwrite=True)
    assert contents_of(f"{data_dir}/made/1.0.0") == before
    prepare(**again, overwrite=True, readers=1, val_fraction=0.4)
    assert prepared_dataset.open_dataset("made", data_dir).splits["val"].examples == 2
    write(f"{data_dir}/other/file", b"x")
    with pytest.raises(DataError, match="is not a prepared data set"):
        prepare(**(again | {"name": "other"}), overwrite=True)
    assert gfile.list_dir(data_dir) == ["made", "other"]


def test_what_is_missing_in_a_store_is_named(stored):
    data_dir, _ = stored
    with pytest.raises(DataError, match=r"'nothing' is not in 'ram://.*prepare it with"):
        prepared_dataset.open_dataset("nothing", data_dir)
    with pytest.raises(DataError, match="ram://nowhere/here: no such folder"):
        prepare(layout="single", source="ram://nowhere/here", name="x", data_dir=data_dir)
    with pytest.raises(DataError, match=r"nowhere://.*not implemented"):
        prepared_dataset.open_dataset("made", "nowhere://datasets")
    with pytest.raises(DataError, match=r"train.txt: cannot be read"):
        lists = {"split_lists": "ram://nowhere/lists"}
        prepare(layout="single", source=stored[1], name="x", data_dir=data_dir, **lists)
    shard = next(name for name in gfile.list_dir(f"{data_dir}/made/1.0.0") if "tfrecord" in name)
    tf.io.gfile.remove(f"{data_dir}/made/1.0.0/{shard}")
    with pytest.raises(DataError, match=f"{shard}: this file of the data set is missing"):
        prepared_dataset.open_dataset("made", data_dir)


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_training_reads_in_a_store_what_it_reads_on_a_disk(stored, tmp_path, cache):
    data_dir, _ = stored
    shutil.rmtree(tmp_path / "copied", ignore_errors=True)
    for name in gfile.list_dir(f"{data_dir}/made/1.0.0"):
        path = f"{data_dir}/made/1.0.0/{name}"
        write(f"{tmp_path}/copied/made/1.0.0/{name}", gfile.open_binary(path).read())
    read = []
    for where in (str(tmp_path / "copied"), data_dir):
        images = PairedImages(
            dataset="made", data_dir=where, load_size=36, crop_size=32, supply=Supply(cache=cache)
        )
        batches = images.batches(position_examples=1, global_batch=2).take(3)
        read.append([value for batch in batches.as_numpy_iterator() for value in batch.values()])
        cached = gfile.exists(f"{where}/.cache") and gfile.list_dir(f"{where}/.cache")
        assert len(cached or []) == (cache == "disk")
    for first, second in zip(*read, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_prepared_public_set_is_used_where_it_lies(stored):
    data_dir, _ = stored
    for source in (data_dir, f"{data_dir}/made", f"{data_dir}/made/1.0.0/"):
        report = tfds_catalog.prepare_public(name="made", data_dir="unused", source=source)
        assert report.data_dir == data_dir
    with pytest.raises(DataError, match="TFDS writes to a disk or to gs://, not to ram://"):
        tfds_catalog.prepare_public(name="mnist", data_dir=data_dir)
