"""Labels from files into batches: maps of classes, and images of a pair whose colours are classes."""

import json
import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.augmentation.colour import ColourJitter
from data.augmentation.geometry import Crop, Rotation
from data.errors import DataError
from data.pairs import PairedImages
from data.single import SingleImages
from data.supply import Supply
from data.tfrecords.label_classes import classes_in, joined
from data.tfrecords.prepared_dataset import open_dataset
from data.unpaired import UnpairedImages

SIZE = 64
PALETTE = np.uint8([[0, 0, 0], [200, 30, 30], [30, 200, 30], [30, 30, 200], [250, 250, 250]])
MOVING = (ColourJitter(), Rotation(degrees=(-30, 30)), Crop(pad=3))


def picture(seed, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, channels), np.uint8)


def indices(seed, classes):
    return np.random.default_rng(seed).integers(0, classes, (SIZE // 4, SIZE // 4)).repeat(4, 0).repeat(4, 1)


def ids(seed):
    return np.uint8(200) * indices(seed, 2).astype(np.uint8)


@pytest.fixture
def source(save):
    """Eight pairs: A of five colours, B a picture; and maps of the class ids 0 and 200."""
    for number in range(8):
        save(f"A/{number}.png", PALETTE[indices(number, 5)])
        save(f"B/{number}.png", picture(number))
        save(f"../maps/{number}.png", ids(number))


def data_of(tmp_path, kind=PairedImages, **settings):
    settings = {"load_size": 72, "crop_size": 48, "seed": 1} | settings
    return kind(dataset="made", data_dir=str(tmp_path / "datasets"), **settings)


def batch_of(data, examples=8):
    batches = data.batches(position_examples=0, global_batch=examples)
    return {name: x.numpy() for name, x in next(iter(batches)).items()}


def levels(images, high=255):
    """Images in [-1, 1] as they are stored, if they still have those levels."""
    exact = (images.astype(np.float64) + 1) / 2 * high
    np.testing.assert_allclose(exact, np.round(exact), rtol=0, atol=0.01)
    return np.round(exact).astype(int)


def colours_of(images):
    return {tuple(pixel) for pixel in images.reshape(-1, images.shape[-1]).tolist()}


def metadata(tmp_path):
    return json.loads(next((tmp_path / "datasets").rglob("metadata.json")).read_text())


@pytest.mark.parametrize("augmentations", [(), MOVING])
def test_maps_of_classes_are_one_hot_and_show_only_what_is_there(
    source, tmp_path, run_prepare, augmentations
):
    flags = {"side_map": tmp_path / "maps", "side_map_kind": "classes", "val_fraction": 0.2}
    code, told, errors = run_prepare("paired", **flags)
    assert code == 0, errors
    assert "labels    side_map: 2 classes, never interpolated: 0, 200" in told
    assert metadata(tmp_path)["labels"] == {"side_map": [[0], [200]]}
    data = data_of(tmp_path, augmentations=augmentations)
    assert data.example_spec["side_map"].shape == (48, 48, 2) and data.label_roles == ("side_map",)
    batch = batch_of(data)
    assert set(np.unique(batch["side_map"])) == {0, 1}
    np.testing.assert_array_equal(batch["side_map"].sum(axis=-1), 1)  # every pixel is one class
    [evaluated] = data.evaluation("val", batch=8)
    np.testing.assert_array_equal(evaluated["side_map"].numpy().sum(axis=-1), 1)
    centres = ((2 * np.arange(48) + 1) * SIZE) // 96
    names = [int(name) for name in evaluated["name"].numpy()]
    for name, one_hot in zip(names, evaluated["side_map"].numpy(), strict=True):
        expected = ids(name)[centres[:, None], centres]
        np.testing.assert_array_equal(one_hot, np.stack([expected == 0, expected == 200], axis=-1))


def test_maps_of_values_are_interpolated_as_before(source, tmp_path, run_prepare):
    code, told, _ = run_prepare("paired", side_map=tmp_path / "maps")
    assert code == 0 and "labels  " not in told and "labels" not in metadata(tmp_path)
    for feature, values, flag in (("A", 4, "--labels=A"), ("side_map", 2, "--side_map_kind=classes")):
        assert f"hint      {feature}: has only {values} different values" in told and flag in told
    assert "hint      B" not in told
    data = data_of(tmp_path)
    assert data.label_roles == () and data.one_hot == {} and data.notes() == []
    assert data.example_spec["side_map"].shape == (48, 48, 1)
    found = np.round((batch_of(data)["side_map"] + 1) * 127.5)
    assert np.isin(found, [0, 200]).mean() < 0.9


@pytest.mark.parametrize("layout", ["paired", "side_by_side"])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_labels_keep_their_colours(source, tmp_path, run_prepare, save, layout, cache):
    if layout == "side_by_side":
        for number in range(8):
            halves = PALETTE[indices(number, 5)], picture(number)
            save(f"../pairs/{number}.png", np.concatenate(halves, axis=1))
        code, told, errors = run_prepare(layout, source=tmp_path / "pairs", labels="A")
    else:
        code, told, errors = run_prepare(layout, labels="A")
    assert code == 0, errors
    assert "labels    A: 5 classes, never interpolated: (0, 0, 0), (30, 30, 200), (30, 200, 30)" in told
    palette = colours_of(PALETTE)
    for settings in (
        {},
        {"resize": "resize_with_pad"},
        {"augmentations": MOVING},
        {"direction": "BtoA", "augmentations": MOVING},
    ):
        data = data_of(tmp_path, supply=Supply(cache=cache), **settings)
        labels, other = ("target", "input") if settings.get("direction") == "BtoA" else ("input", "target")
        batch = batch_of(data)
        assert colours_of(levels(batch[labels])) == palette
        assert data.label_roles == (labels,)
        if "augmentations" in settings:
            assert data.notes()[0] == f"ColourJitter: without effect on {labels}, which are classes"
        # The picture is as without labels: rerunning on the same data set without its mark gives its bits.
        path = next((tmp_path / "datasets").rglob("metadata.json"))
        marked = path.read_text()
        path.write_text(json.dumps({k: v for k, v in json.loads(marked).items() if k != "labels"}))
        plain = batch_of(data_of(tmp_path, supply=Supply(cache=cache), **settings))
        path.write_text(marked)
        np.testing.assert_array_equal(batch[other], plain[other])
        assert len(colours_of(np.round((plain[labels] + 1) * 127.5))) > 100


@pytest.mark.parametrize("augmentations", [(), MOVING])
def test_an_input_of_labels_is_one_hot_if_asked(source, tmp_path, run_prepare, augmentations):
    assert run_prepare("paired", labels="A,B", val_fraction=0.2)[0] == 0
    assert metadata(tmp_path)["labels"]["B"] == []  # noise is no palette
    data = data_of(tmp_path, label_encoding="one_hot", augmentations=augmentations)
    colours = data_of(tmp_path, augmentations=augmentations)
    assert data.example_spec["input"].shape == (48, 48, 5)
    assert data.example_spec["target"].shape == (48, 48, 3)
    batch, plain = batch_of(data), batch_of(colours)
    classes = np.array(sorted(PALETTE.tolist()))
    np.testing.assert_array_equal(classes[batch["input"].argmax(axis=-1)], levels(plain["input"]))
    np.testing.assert_array_equal(batch["input"].sum(axis=-1), 1)
    np.testing.assert_array_equal(batch["target"], plain["target"])
    with pytest.raises(DataError, match="the input, B, has no list of classes, as its files are JPEG"):
        _ = data_of(tmp_path, label_encoding="one_hot", direction="BtoA").example_spec


def test_what_cannot_be_one_hot_is_refused(source, tmp_path, run_prepare):
    assert run_prepare("paired")[0] == 0
    with pytest.raises(DataError, match="the input, A, is not declared as labels; prepare it with --labels"):
        _ = data_of(tmp_path, label_encoding="one_hot").example_spec
    with pytest.raises(DataError, match="label_encoding = 'x': must be 'colours' or 'one_hot'"):
        data_of(tmp_path, label_encoding="x")
    with pytest.raises(DataError, match="such inputs have no colours, and colour_space = 'lab'"):
        data_of(tmp_path, label_encoding="one_hot", colour_space="lab")


def test_unpaired_and_single_labels(source, tmp_path, run_prepare):
    assert run_prepare("unpaired", labels="A")[0] == 0
    for direction, role in (("AtoB", "input"), ("BtoA", "target")):
        data = data_of(tmp_path, UnpairedImages, direction=direction, augmentations=MOVING)
        batch = batch_of(data)
        assert data.label_roles == (role,)
        assert colours_of(levels(batch[role])) == colours_of(PALETTE)
        [other] = {"input", "target"} - {role}
        assert len(colours_of(batch[other])) > 1000
    assert run_prepare("paired", labels="A", overwrite=True)[0] == 0
    data = data_of(tmp_path, SingleImages, feature="A", downscale=2, augmentations=MOVING)
    batch = batch_of(data)
    for role in ("input", "target"):
        assert colours_of(levels(batch[role])) == colours_of(PALETTE)
    assert batch["input"].shape == (8, 24, 24, 3)


def test_class_ids_of_other_depths(source, tmp_path, run_prepare, save):
    for number in range(8):
        Image.fromarray(ids(number).astype(np.uint16) * 5).save(tmp_path / "maps" / f"{number}.png")
    flags = {"side_map": tmp_path / "maps", "side_map_kind": "classes", "overwrite": True}
    assert run_prepare("paired", **flags)[0] == 0
    assert open_dataset("made", tmp_path / "datasets").labels == {"side_map": ((0,), (1000,))}
    np.testing.assert_array_equal(batch_of(data_of(tmp_path))["side_map"].sum(axis=-1), 1)
    for number in range(8):
        (tmp_path / "maps" / f"{number}.png").unlink()
        tifffile.imwrite(tmp_path / "maps" / f"{number}.tif", ids(number).astype(np.float32) / 200 * 19 - 1)
    assert run_prepare("paired", **flags)[0] == 0
    assert open_dataset("made", tmp_path / "datasets").labels == {"side_map": ((-1,), (18,))}
    for augmentations in ((), MOVING):
        batch = batch_of(data_of(tmp_path, augmentations=augmentations))
        np.testing.assert_array_equal(batch["side_map"].sum(axis=-1), 1)


def test_maps_that_hold_no_classes_are_left_out_and_named(source, tmp_path, run_prepare):
    maps = tmp_path / "maps"
    (maps / "1.png").unlink()
    Image.fromarray(ids(1)).save(maps / "1.jpg")
    (maps / "2.png").unlink()
    Image.fromarray(picture(2)).save(maps / "2.png")
    flags = {"side_map": maps, "side_map_kind": "classes"}
    code, told, errors = run_prepare("paired", **flags)
    assert code == 0, errors
    for name in ("1.jpg", "2.png"):
        assert f"{name}: is a JPEG or has more than 256 different values, which are no classes" in told
    assert run_prepare("paired", **flags, strict=True, name="strict")[0] == 2
    for name in ("1.jpg", "2.png"):
        (maps / name).unlink()
    for number in range(8):
        (maps / f"{number}.png").unlink(missing_ok=True)
        values = ids(number).astype(np.float32)
        values[3, 4] += 0.5 * (number == 5)
        tifffile.imwrite(maps / f"{number}.tif", values)
    code, told, _ = run_prepare("paired", **flags, overwrite=True)
    assert code == 0 and "skipped   1 example" in told
    assert "5.tif: has the value" in told and "and classes are whole numbers from -32768 to 65535" in told


def test_depths_are_not_mixed(source, tmp_path, run_prepare):
    Image.fromarray(ids(3).astype(np.uint16)).save(tmp_path / "maps" / "3.png")
    flags = {"side_map": tmp_path / "maps", "side_map_kind": "classes"}
    code, told, errors = run_prepare("paired", **flags)
    # Eight bits would be multiplied by 257, so that the same class had two numbers.
    assert "is uint8 among uint16 labels, so its classes would change; convert it" in told + errors


def test_too_many_classes_in_all(source, tmp_path, run_prepare):
    for number in range(8):
        values = (indices(number, 100) + 100 * number).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "maps" / f"{number}.png")
    flags = {"side_map": tmp_path / "maps", "side_map_kind": "classes"}
    code, _, errors = run_prepare("paired", **flags)
    assert code == 2 and errors.count("\n") == 1
    assert "side_map: has more than 256 different values in all, which is too many for classes" in errors
    assert not (tmp_path / "datasets" / "made").exists()


def test_jpeg_labels_are_not_interpolated_but_have_no_list(source, tmp_path, run_prepare):
    for path in pathlib.Path(tmp_path / "source" / "A").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    code, told, errors = run_prepare("paired", labels="A")
    assert code == 0, errors
    assert "labels    A: never interpolated; no list of classes, as files are JPEG or have too many" in told
    assert metadata(tmp_path)["labels"] == {"A": []}
    assert data_of(tmp_path).label_roles == ("input",)


@pytest.mark.parametrize(
    "flags, expected",
    [
        ({"side_map_kind": "classes"}, "side_map_kind: is given without side_map"),
        ({"labels": "C"}, "labels = 'C': not known; choose A, B or A,B"),
        ({"labels": "A", "layout": "single"}, "layout single has no A and B; leave it out"),
        ({"labels": "A", "layout": "tfds"}, "takes name, data_dir and source only"),
    ],
)
def test_flags_that_do_not_fit_are_refused(source, run_prepare, flags, expected):
    code, _, errors = run_prepare(**{"layout": "paired"} | flags)
    assert code == 2 and expected in errors and errors.count("\n") == 1


def test_pixel_values_of_an_image():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert len(classes_in(ramp)) == 256
    assert classes_in(np.arange(257, dtype=np.uint16).reshape(1, 257, 1)) is None
    assert classes_in(np.full((2, 2, 4), 65535, np.uint16)) == {(65535,) * 4}
    assert joined([classes_in(ramp), classes_in(ramp + np.uint16(1))]) is None
    assert joined([{(1,)}, None]) is None and joined([{(1,)}, {(2,)}]) == {(1,), (2,)}
    for pixels, expected in (
        (np.zeros((2, 2, 5), np.uint8), "has 5 channels, and labels have 1 to 4"),
        (np.full((2, 2, 1), 0.25, np.float32), "has the value 0.25, and classes are whole numbers"),
        (np.full((2, 2, 1), 1e6, np.float32), "from -32768 to 65535"),
        (np.full((2, 2, 3), -1, np.float32), "from 0 to 65535"),
    ):
        with pytest.raises(DataError, match=expected):
            classes_in(pixels)
