"""One format for all images of a feature: channels, depth, and a value range that may have to be measured."""

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from data.errors import DataError
from data.formats.raw_video import VideoFormat
from data.pipeline import record_reader
from data.preparation.survey import ImageReader
from data.prepare import prepare
from data.tfrecords import image_decoding, image_encoding, prepared_dataset


def noise(seed, *shape, dtype=np.uint8, high=256):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


@pytest.fixture
def prepared(tmp_path):
    """Prepares tmp_path/source; gives report, {split: {name: {feature: pixels}}}, opened data set."""

    def run(layout, **settings):
        settings = {"val_fraction": 0, "test_fraction": 0} | settings
        report = prepare(
            layout=layout, source=tmp_path / "source", name="made", data_dir=tmp_path / "datasets", **settings
        )
        opened, found = prepared_dataset.open_dataset("made", tmp_path / "datasets"), {}
        for split, part in opened.splits.items():
            for example in record_reader.stored_examples(part):
                parsed = image_decoding.parse_record(opened.features, example["record"])
                found.setdefault(split, {})[parsed["name"].numpy().decode()] = {
                    feature: image_decoding.image_of(parsed, feature, opened.features[feature]).numpy()
                    for feature in report.features
                }
        return report, found, opened

    return run


def formats(report):
    return {name: (f.channels, f.dtype, f.value_range) for name, f in report.features.items()}


def test_unpaired_sides_with_different_channels(save, prepared):
    grey, colour = noise(0, 12, 9), noise(1, 8, 8, 3)
    save("trainA/1.png", grey)
    save("trainB/1.png", colour)
    save("testA/2.png", noise(2, 7, 7))
    save("testB/2.png", noise(3, 7, 7, 3))
    report, found, opened = prepared("unpaired")
    assert opened.metadata["channels"] == {"A": 1, "B": 3}
    assert "3 channels, values 0 to 255; 1 in A, 3 in B" in str(report)
    assert list(report.examples) == ["trainA", "trainB", "testA", "testB"]
    assert [part.examples for part in opened.splits.values()] == [1, 1, 1, 1]
    assert opened.metadata["smallest_height"] == {"pixels": 7, "name": "2"}
    np.testing.assert_array_equal(found["trainA"]["1"]["image"], grey[..., None].repeat(3, axis=-1))
    np.testing.assert_array_equal(found["trainB"]["1"]["image"], colour)
    # What a reader of side A does with it: grey again, to the bit.
    np.testing.assert_array_equal(found["trainA"]["1"]["image"][..., :1], grey[..., None])


def test_unpaired_sides_of_equal_channels_say_nothing_of_them(save, prepared):
    for side in ("A", "B"):
        save(f"{side}/1.png", noise(0, 8, 8, 3))
    assert "channels" not in prepared("unpaired")[2].metadata


def test_unpaired_sides_of_different_depth(save, prepared):
    save("A/1.png", noise(0, 8, 8))
    save("B/1.png", Image.fromarray(noise(0, 8, 8, dtype=np.uint16, high=65536)))
    with pytest.raises(DataError, match="A, B: have different types of values .A uint8, B uint16."):
        prepared("unpaired")


def test_each_side_of_a_pair_keeps_its_depth(save, prepared):
    deep, shallow = noise(0, 8, 8, dtype=np.uint16, high=65536), noise(1, 8, 8, 3)
    save("A/1.png", Image.fromarray(deep))
    save("B/1.jpg", shallow)
    report, found, _ = prepared("paired")
    assert formats(report) == {"A": (1, "uint16", (0, 65535)), "B": (3, "uint8", (0, 255))}
    np.testing.assert_array_equal(found["train"]["1"]["A"], deep[..., None])


def floats(tmp_path, *images):
    (tmp_path / "source").mkdir()
    for k, image in enumerate(images):
        tifffile.imwrite(tmp_path / "source" / f"{k}.tif", image)


def test_the_range_of_floats_is_measured_over_all_images(tmp_path, prepared):
    images = [np.float32([[-0.25, 1.5], [0.0, 3.0]]), np.float32([[7.5, 0.5], [0.0, 3.0]])]
    floats(tmp_path, *images)
    report, found, _ = prepared("single")
    assert formats(report) == {"image": (1, "float32", (-0.25, 7.5))}
    assert report.measured == ("image",) and "decoded twice" in str(report)
    for k, image in enumerate(images):
        np.testing.assert_array_equal(found["train"][str(k)]["image"], image[..., None])


def test_a_given_range_is_taken_and_checked(tmp_path, prepared):
    floats(tmp_path, np.full((4, 4), 0.5, "f4"), np.full((4, 4), 1.25, "f4"), np.full((4, 4), np.nan, "f4"))
    report, found, _ = prepared("single", value_range=(0.0, 1.0))
    assert formats(report) == {"image": (1, "float32", (0.0, 1.0))} and not report.measured
    assert list(found["train"]) == ["0"]
    assert len(report.skipped) == 2
    assert any("1.tif: " in reason and "1.25" in reason for reason in report.skipped)
    assert any("2.tif: " in reason and "not finite" in reason for reason in report.skipped)


def test_floats_that_are_all_one_value(tmp_path, prepared):
    floats(tmp_path, np.full((4, 4), 3e9, "f4"))
    low, high = prepared("single")[0].features["image"].value_range
    assert low == 3e9 and high > low


def test_sixteen_bits_that_use_twelve(save, prepared):
    save("1.png", Image.fromarray(noise(0, 8, 8, dtype=np.uint16, high=4096)))
    save("2.png", Image.fromarray(np.full((8, 8), 4096, np.uint16)))
    report, found, _ = prepared("single", value_range=(0, 4095))
    assert formats(report) == {"image": (1, "uint16", (0, 4095))}
    assert list(found["train"]) == ["1"] and "4096" in report.skipped[0]


def test_a_range_for_eight_bits_that_they_exceed(save, prepared):
    save("1.png", noise(0, 8, 8))
    with pytest.raises(DataError, match="1.png: has values from .*, outside the value range 0 to 100"):
        prepared("single", value_range=(0, 100))


def test_what_is_left_out_is_not_the_smallest(save, prepared):
    for k, size in enumerate((20, 18, 16)):
        path = save(f"{k}.jpg", noise(k, size, size, 3), quality=95)
    path.write_bytes(path.read_bytes()[:-200])
    report, found, opened = prepared("single")
    assert set(found["train"]) == {"0", "1"}
    assert opened.metadata["smallest_height"] == {"pixels": 18, "name": "1"}
    assert (report.shortest_edge, report.longest_edge) == (18, 20)


def test_a_split_of_which_nothing_is_left(save, prepared):
    save("train/a.png", noise(0, 8, 8))
    path = save("val/b.jpg", noise(1, 32, 32), quality=95)
    path.write_bytes(path.read_bytes()[:-300])
    report, found, _ = prepared("single")
    assert report.examples == {"train": 1} and list(found) == ["train"]


def test_pairs_of_raw_video_frames(tmp_path, prepared):
    rng, size = np.random.default_rng(0), 8 * 6
    frames = {name: rng.integers(0, 1024, (4, 3 * size), np.uint16) for name in ("clean", "noisy")}
    for name, samples in frames.items():
        (tmp_path / "source" / name).mkdir(parents=True)
        samples.astype("<u2").tofile(tmp_path / "source" / name / "walk.yuv")
    video = {"size": (8, 6), "pixel_format": "yuv444p10", "colours": "ycbcr"}
    report, found, _ = prepared("paired", video=VideoFormat(**video))
    assert formats(report) == dict.fromkeys("AB", (3, "uint16", (0, 1023)))
    assert (report.kept, report.re_encoded) == (0, 8)
    for k in range(4):
        for side, name in (("A", "clean"), ("B", "noisy")):
            planes = frames[name][k].reshape(3, 6, 8).transpose(1, 2, 0)
            np.testing.assert_array_equal(found["train"][f"walk_f000{k}"][side], planes)


def test_transparency_is_kept(save, prepared):
    save("1.png", Image.fromarray(noise(0, 8, 8, 4)))
    save("2.png", noise(1, 8, 8))
    report, found, _ = prepared("single")
    assert formats(report) == {"image": (4, "uint8", (0, 255))}
    np.testing.assert_array_equal(found["train"]["1"]["image"], noise(0, 8, 8, 4))
    np.testing.assert_array_equal(found["train"]["2"]["image"][..., 3], 255)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"max_pixels": 0}, "max_pixels = 0: must be at least 1"),
        ({"threads": 0}, "threads = 0"),
        ({"value_range": (1.0, 1.0)}, "the first must be less"),
    ],
)
def test_settings_that_cannot_be_used(settings, match):
    with pytest.raises(DataError, match=match):
        ImageReader(**settings)


def test_the_flags_reach_the_images(save, run_prepare, tmp_path):
    save("s1_a.png", Image.fromarray(noise(0, 8, 8, dtype=np.uint16, high=4096)))
    save("s1_b.png", noise(0, 8, 8))
    flags = {"match_a": "(.*)_a", "match_b": "(.*)_b", "value_range": "0,4095", "readers": 1, "threads": 1}
    assert run_prepare("paired", **flags)[0] == 0
    feature = prepared_dataset.open_dataset("made", tmp_path / "datasets").features["A"]
    assert image_encoding.format_of(feature).value_range == (0, 4095)
    assert feature.tf_dtype == tf.uint16
    code, _, err = run_prepare("paired", **(flags | {"value_range": "0-4095"}))
    assert code == 2 and "--value_range=0-4095: must be two numbers such as 1,2" in err
    code, _, err = run_prepare("single", video_size="352")
    assert code == 2 and "--video_size=352: must be two numbers such as 1x2" in err
