"""`supply.Supply.resizing = "fast"`: the same examples, with pixels near those of the exact way."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from data.augmentation.geometry import RandomResizedCrop
from data.errors import DataError
from data.pairs import PairedImages
from data.prepare import prepare
from data.single import SingleImages
from data.supply import Supply
from data.tfrecords import image_decoding

GROWS = {"load_size": 72, "crop_size": 48}  # all images of the small set
FEATURE = tfds.features.Image(shape=(None, None, 3))


def rows_of(source, batches=5, **where):
    where = {"position_examples": 0, "global_batch": 5} | where
    found = list(source.batches(**where).take(batches))
    return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}


def small(data_dir, resizing="fast", supply=None, **settings):
    supply = Supply(window_bytes=40_000, resizing=resizing, **supply or {})
    settings = GROWS | {"seed": 5} | settings
    return PairedImages(dataset="small", data_dir=str(data_dir), supply=supply, **settings)


def levels(found, expected):
    """How far two batches in [-1, 1] differ, in grey levels."""
    return np.abs(found - expected) * 127.5


def smooth(height, width, channels=3):
    """Waves of about 40 pixels: what reduced decoding keeps, and where a shift would show."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 6.5 + k) * np.cos(y / (5.5 + k)) for k in range(channels)]
    return (127.5 + 110 * np.stack(waves, -1)).astype(np.uint8)


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "JPEG", **{"quality": 97, "subsampling": 0} | options)
    return buffer.getvalue()


def reduced(encoded, least_size, halves=False, channels=3, max_pixels=10**9):
    """Decodes in a graph, as the pipeline does: pixels, extent and whether they are reduced."""

    @tf.function(autograph=False)
    def decode(contents):
        settings = {"channels": channels, "max_pixels": max_pixels}
        return image_decoding.reduced_image_of(
            {"image": contents}, "image", FEATURE, least_size=least_size, halves=halves, **settings
        )

    return [part.numpy() for part in decode(tf.constant(encoded))]


# --- decoding at a reduced scale


@pytest.mark.parametrize(
    "size, least, halves, scale",
    [
        ((96, 120), (97, 10), False, 1),
        ((96, 120), (49, 10), False, 1),
        ((96, 120), (48, 60), False, 2),
        ((96, 120), (24, 31), False, 2),
        ((96, 120), (24, 30), False, 4),
        ((97, 121), (12, 15), False, 8),
        ((96, 120), (10, 10), True, 4),  # halves of 60 would mix at 1/8
        ((96, 122), (10, 10), True, 1),  # halves of 61
        ((96, 120), (48, 31), True, 1),
    ],
)
def test_the_scale_is_the_smallest_that_keeps_the_size(size, least, halves, scale):
    pixels, extent, is_reduced = reduced(jpeg(smooth(*size)), least, halves)
    assert pixels.shape == (-(-size[0] // scale), -(-size[1] // scale), 3)
    np.testing.assert_array_equal(extent, np.array(size) / scale)
    assert is_reduced == (scale > 1)


def test_halves_are_not_mixed():
    pair = np.zeros((64, 128, 3), np.uint8)
    pair[:, 64:] = 255
    pixels, _, _ = reduced(jpeg(pair), (16, 16), halves=True)
    assert pixels.shape == (16, 32, 3)
    assert pixels[:, :16].max() <= 2 and pixels[:, 16:].min() >= 253


def test_png_is_decoded_whole():
    pixels = smooth(64, 80)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    found, extent, is_reduced = reduced(buffer.getvalue(), (8, 8))
    np.testing.assert_array_equal(found, pixels)
    assert extent.tolist() == [64, 80] and not is_reduced


def test_damage_and_too_many_pixels_fail_at_any_scale():
    encoded = jpeg(smooth(64, 80))
    for broken in (encoded[: len(encoded) * 3 // 4], encoded[:100], b"", b"no image"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            reduced(broken, (8, 8))
    reduced(encoded, (8, 8), max_pixels=64 * 80)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 5119 pixels"):
        reduced(encoded, (8, 8), max_pixels=64 * 80 - 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A prepared data set of JPEG pictures, most of them of a size that no scale divides."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "source").mkdir()
    for number, size in enumerate([(203, 301), (205, 299), (333, 215), (240, 240), (207, 331), (201, 203)]):
        (folder / "source" / f"{number}.jpg").write_bytes(jpeg(smooth(*size)))
    settings = {"val_fraction": 0.0, "test_fraction": 0.0}
    prepare(layout="single", source=str(folder / "source"), name="photos", data_dir=str(folder), **settings)
    return folder


@pytest.mark.parametrize(
    "settings, cache",
    [
        ({}, "none"),
        ({}, "memory"),
        ({"resize": "resize_with_pad"}, "none"),
        ({"resize": "resize_with_pad"}, "memory"),
        ({"random_crop_epochs": 1}, "none"),
    ],
)
def test_reduced_pictures_show_the_same_place(photos, settings, cache):
    """Were their last rows taken for whole ones, the waves would differ by up to 54 levels, not by 7."""

    def read(resizing):
        supply = Supply(resizing=resizing, cache=cache)
        crop = {"load_size": 50, "crop_size": 40}
        return rows_of(SingleImages(dataset="photos", data_dir=str(photos), supply=supply, **crop | settings))

    found, expected = read("fast"), read("exact")
    np.testing.assert_array_equal(found["id"], expected["id"])
    difference = levels(found["target"], expected["target"])
    assert 0 < difference.max() < 9
    assert difference.mean() < 1.5


# --- pictures that grow


def test_examples_are_those_of_the_exact_way(small_set):
    found, expected = rows_of(small(small_set)), rows_of(small(small_set, "exact"))
    np.testing.assert_array_equal(found["id"], expected["id"])
    for role in ("input", "target"):
        difference = levels(found[role], expected[role])
        assert 0 < difference.max() < 3.5  # three where overshoots reach black or white
        assert difference.mean() < 0.3


def test_the_kernel_is_pillows_without_rounding_in_between(small_set, pair_of):
    """Against Pillow's float images: one rounding at the end, and TensorFlow's table of 1,024 places."""
    found = rows_of(small(small_set, load_size=(72, 80), crop_size=(72, 80), flip=False), batches=1)
    for example_id, pixels in zip(found["id"], found["target"], strict=True):
        whole = Image.fromarray(pair_of(int(example_id))[1][..., 0].astype(np.float32))
        expected = np.clip(np.asarray(whole.resize((80, 72), Image.Resampling.BICUBIC)), 0, 255)
        np.testing.assert_allclose((pixels[..., 0] + 1) * 127.5, expected, atol=0.5 + 0.3)


@pytest.mark.parametrize(
    "supply, settings",
    [
        ({}, {}),
        ({"cache": "memory"}, {}),
        ({"cache": "disk"}, {"resize": "resize_with_pad"}),
        ({"on_bad_record": "skip"}, {}),
    ],
)
def test_however_records_are_read_a_position_has_the_same_examples(small_set, tmp_path, supply, settings):
    (tmp_path / "small").symlink_to(f"{small_set}/small")
    expected = rows_of(small(small_set, **settings), batches=12)
    where = {"position_examples": 37, "global_batch": 4, "rows": [1, 3]}  # as one of two workers does
    found = rows_of(small(tmp_path, supply=supply, **settings), batches=4, **where)
    taken = [37 + 4 * step + row for step in range(4) for row in (1, 3)]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values[taken])


def test_a_cache_on_disk_is_not_that_of_the_exact_way(small_set, tmp_path):
    (tmp_path / "small").symlink_to(f"{small_set}/small")
    for settings in ({"resizing": "exact"}, {}, {"load_size": 60}):
        source = small(tmp_path, supply={"cache": "disk"}, **settings)
        uncached = small(small_set, **settings)
        np.testing.assert_array_equal(rows_of(source)["input"], rows_of(uncached)["input"])
    assert len(list((tmp_path / ".cache").iterdir())) == 3


def test_what_shrinks_or_has_the_size_is_exact_and_a_cache_moves_single_pixels_by_a_level(small_set):
    shrinks = {"load_size": 36, "crop_size": 32}
    found = rows_of(small(small_set, **shrinks))
    exact = rows_of(small(small_set, "exact", **shrinks))
    cached = rows_of(small(small_set, supply={"cache": "memory"}, **shrinks))
    for role in ("input", "target"):
        np.testing.assert_array_equal(found[role], exact[role])
        difference = np.round(levels(cached[role], exact[role]))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.001


def test_evaluation_is_exact(small_set):
    for found, expected in zip(
        small(small_set).evaluation("test", batch=2),
        small(small_set, "exact").evaluation("test", batch=2),
        strict=True,
    ):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_later_epochs_have_whole_pictures(small_set):
    found, expected = (
        rows_of(small(small_set, resizing, random_crop_epochs=1), batches=2, position_examples=22)
        for resizing in ("fast", "exact")
    )
    cropped = rows_of(small(small_set), batches=2, position_examples=22)
    assert levels(found["input"], expected["input"]).max() < 3.5
    assert levels(found["input"], cropped["input"]).max() > 50


# --- what is not a JPEG or not a picture


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_labels_and_deep_images_are_untouched_beside_a_picture(tmp_path, cache):
    rng = np.random.default_rng(3)
    for side in ("A", "B", "maps"):
        (tmp_path / "source" / side).mkdir(parents=True)
    for number in range(6):
        ids = rng.integers(0, 3, (96, 104), np.uint8) * 100
        Image.fromarray(ids).save(tmp_path / "source" / "A" / f"{number}.png")
        (tmp_path / "source" / "B" / f"{number}.jpg").write_bytes(jpeg(smooth(96, 104)))
        deep = rng.integers(0, 65536, (96, 104), np.uint16)
        Image.fromarray(deep).save(tmp_path / "source" / "maps" / f"{number}.png")
    (tmp_path / "source" / "maps").rename(tmp_path / "maps")
    prepare(
        layout="paired",
        source=str(tmp_path / "source"),
        name="labels",
        data_dir=str(tmp_path),
        labels=("A",),
        side_map=str(tmp_path / "maps"),
        val_fraction=0.0,
        test_fraction=0.0,
    )
    for size in ({"load_size": 120, "crop_size": 100}, {"load_size": 48, "crop_size": 40}):
        found, expected = (
            rows_of(
                PairedImages(
                    dataset="labels",
                    data_dir=str(tmp_path),
                    label_encoding="one_hot",
                    supply=Supply(resizing=resizing, cache=cache),
                    **size,
                ),
                batches=3,
            )
            for resizing in ("fast", "exact")
        )
        np.testing.assert_array_equal(found["input"], expected["input"])
        # In other blocks, sums come in another order: one of 65,535 levels.
        assert np.abs(found["side_map"] - expected["side_map"]).max() <= 2.1 / 65535
        difference = levels(found["target"], expected["target"])
        assert 0 < difference.max() < 9


# --- settings


@pytest.mark.parametrize(
    "settings, supply, match",
    [
        ({"load_size": 0}, {}, "resizing = 'fast': needs a load_size, which is 0; set one"),
        (
            {"random_resized_crop": RandomResizedCrop()},
            {},
            "'fast': a random_resized_crop resizes",
        ),
        ({"random_crop_epochs": 3}, {"cache": "memory"}, "random_crop_epochs needs two sizes"),
        ({"random_crop_epochs": "50%"}, {"cache": "disk"}, "random_crop_epochs needs two sizes"),
    ],
)
def test_settings_that_cannot_be_used(settings, supply, match):
    with pytest.raises(DataError, match=match):
        small("nowhere", supply=supply, **settings)


def test_only_two_ways():
    with pytest.raises(DataError, match="resizing = 'quick': must be one of exact, fast"):
        Supply(resizing="quick")


# --- real images


@pytest.mark.parametrize(
    "folder, layout, size, largest, over_two",
    [
        # Text-like edge maps are white: Pillow clips overshoots after the first of two passes, the fast way
        # after both. Measured: 8, 30 and 34 levels; by more than 2 in 0.0016, 0.8 and 1.8 % of the values.
        ("facades/val", "side_by_side", (286, 256), 12, 0.0001),
        ("edges2shoes_100/val", "side_by_side", (286, 256), 40, 0.015),
        ("polyu_noise", "single", (256, 256), 45, 0.03),  # 512x512 at half the scale
    ],
)
def test_grey_levels_on_real_images(real_images, tmp_path, folder, layout, size, largest, over_two):
    (tmp_path / "source").mkdir()
    paths = sorted(p for p in (tmp_path / real_images / folder).iterdir() if p.suffix.lower() == ".jpg")
    for path in paths[:16]:
        (tmp_path / "source" / path.name).symlink_to(path)
    held = {"val_fraction": 0.0, "test_fraction": 0.0}
    prepare(layout=layout, source=str(tmp_path / "source"), name="real", data_dir=str(tmp_path), **held)
    found, expected = (
        rows_of(
            (PairedImages if layout == "side_by_side" else SingleImages)(
                dataset="real",
                data_dir=str(tmp_path),
                load_size=size[0],
                crop_size=size[1],
                supply=Supply(resizing=resizing),
            ),
            batches=3,
        )
        for resizing in ("fast", "exact")
    )
    difference = np.round(np.concatenate([levels(found[r], expected[r]) for r in ("input", "target")]))
    assert 1 <= difference.max() <= largest
    assert (difference > 2).mean() < over_two
