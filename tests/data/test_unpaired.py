"""Batches of unpaired and of single images."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.augmentation.degradation import GaussianBlur, Noise
from data.errors import DataError
from data.pairs import PairedImages
from data.preparation import tfds_writer
from data.single import SingleImages
from data.tfrecords import image_encoding
from data.unpaired import UnpairedImages

COUNTS = {"trainA": 7, "trainB": 11, "testA": 2, "testB": 3, "valA": 2, "valB": 2}


def flat(value, channels=3):
    """An image that tells which one it is: uint8 [20, 24, channels]."""
    return np.full((20, 24, channels), value, np.uint8)


def write(data_dir, name, examples, *, feature, stored, metadata=None):
    """Writes a data set of one feature: {split: pixels of each example}."""
    tfds_writer.write_dataset(
        name=name,
        data_dir=data_dir,
        features={feature: stored.feature()},
        splits={
            split: lambda images=images: (
                {"name": f"{k}", feature: image_encoding.encode_pixels(image, stored)}
                for k, image in enumerate(images)
            )
            for split, images in examples.items()
        },
        metadata=lambda: metadata or {},
        examples_per_shard={split: 3 for split in examples},
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two domains: A grey, values 0, 1, ..., B coloured, 100, 101, ...; and 16-bit single images."""
    data_dir = str(tmp_path_factory.mktemp("sets"))
    examples = {
        split: [flat(k if split[-1] == "A" else 100 + k) for k in range(count)]
        for split, count in COUNTS.items()
    }
    colour = image_encoding.StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    metadata = {"channels": {"A": 1, "B": 3}}
    write(data_dir, "two", examples, feature="image", stored=colour, metadata=metadata)
    rng = np.random.default_rng(0)
    deep = image_encoding.StoredFormat(channels=1, dtype="uint16", value_range=(0, 1023))
    noise = [rng.integers(0, 1024, (20, 24, 1), np.uint16) for _ in range(6)]
    write(data_dir, "deep", {"train": noise, "val": noise[:3]}, feature="image", stored=deep)
    return data_dir


def two(data_dir, **settings):
    settings = {"load_size": 0, "crop_size": 16, "seed": 3} | settings
    return UnpairedImages(dataset="two", data_dir=data_dir, **settings)


def grey_levels(images):
    return np.round((images[:, 0, 0, 0] + 1) * 127.5).astype(int)


def drawn(source, examples, position_examples=0):
    """Numbers of the images of A and of B that the first examples hold."""
    batches = source.batches(position_examples=position_examples, global_batch=1)
    found = [(b["input"].numpy(), b["target"].numpy()) for b in batches.take(examples)]
    first, second = (grey_levels(np.concatenate(images)) for images in zip(*found, strict=True))
    return first.tolist(), (second - 100).tolist()


def test_an_epoch_is_one_of_the_larger_domain_and_each_domain_has_its_own(data_dir):
    source = two(data_dir)
    assert source.train_examples == 11
    assert source.splits == {"train": 11, "val": 2, "test": 3}
    assert source.evaluation_split == "val"
    a, b = drawn(source, 77)
    for epoch in zip(*[iter(a)] * 7, strict=True):
        assert sorted(epoch) == list(range(7))
    for epoch in zip(*[iter(b)] * 11, strict=True):
        assert sorted(epoch) == list(range(11))
    # Paired anew: not always the same A with a B, nor in the same order.
    partners = {k: {x for x, y in zip(a, b, strict=True) if y == k} for k in range(11)}
    assert min(map(len, partners.values())) >= 2
    assert a[:7] != a[7:14] and a[:7] != b[:7]


def test_random_crops_end_with_the_epoch_of_each_domain_in_which_the_run_has_had_enough(data_dir):
    ramp = np.broadcast_to(np.arange(24, dtype=np.uint8)[None, :, None] * 10, (20, 24, 3))
    stored = image_encoding.StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    counts = {"trainA": 4, "trainB": 6, "valA": 2, "valB": 2}
    examples = {split: [ramp] * count for split, count in counts.items()}
    write(data_dir, "ending", examples, feature="image", stored=stored)
    settings = {"load_size": (20, 24), "crop_size": (12, 8), "flip": False, "random_crop_epochs": 3}
    source = UnpairedImages(dataset="ending", data_dir=data_dir, **settings)
    whole = next(iter(source.evaluation("val", batch=1)))["input"].numpy()[0]
    batch = next(iter(source.batches(position_examples=0, global_batch=40)))
    ends = {}
    for role in ("input", "target"):
        is_whole = [np.array_equal(image, whole) for image in batch[role].numpy()]
        ends[role] = is_whole.index(True)
        assert all(is_whole[ends[role] :])
    assert ends == {"input": 20, "target": 18}  # 3 epochs are 18 examples; A has epochs of 4
    later = next(iter(source.batches(position_examples=18, global_batch=2)))
    for role in ("input", "target"):
        np.testing.assert_array_equal(later[role], batch[role][18:20])


def test_a_stream_from_a_position_is_the_tail_of_the_whole(data_dir):
    source = two(data_dir)
    a, b = drawn(source, 40)
    for position in (1, 6, 11, 33):
        assert drawn(source, 3, position) == (a[position : position + 3], b[position : position + 3])


def test_channels_and_direction(data_dir):
    source = two(data_dir)
    assert source.example_spec["input"].shape == (16, 16, 1)
    assert source.example_spec["target"].shape == (16, 16, 3)
    back = two(data_dir, direction="BtoA")
    assert back.example_spec["input"].shape == (16, 16, 3)
    batch = next(iter(back.evaluation("test", batch=5)))
    assert grey_levels(batch["input"].numpy()).tolist() == [100, 101, 102]
    assert grey_levels(batch["target"].numpy()).tolist() == [0, 1, 0]  # A has two and begins again
    assert batch["name"].numpy().tolist() == [b"0", b"1", b"2"]


def test_domains_are_cropped_independently(data_dir):
    ramp = np.broadcast_to(np.arange(24, dtype=np.uint8)[None, :, None] * 10, (20, 24, 3))
    stored = image_encoding.StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    examples = {split: [ramp] * 8 for split in COUNTS}
    write(data_dir, "ramps", examples, feature="image", stored=stored)
    source = UnpairedImages(dataset="ramps", data_dir=data_dir, load_size=0, crop_size=16, flip=False)
    batch = next(iter(source.batches(position_examples=0, global_batch=40)))
    lefts = [grey_levels(batch[role].numpy()) // 10 for role in ("input", "target")]
    assert set(lefts[0]) == set(lefts[1]) == set(range(9))
    assert np.mean(lefts[0] == lefts[1]) < 0.5


def test_data_sets_of_another_kind_are_refused(data_dir, small_set):
    with pytest.raises(DataError, match="has no unpaired images .*prepare it with --layout=unpaired"):
        _ = UnpairedImages(dataset="small", data_dir=small_set).train_examples
    with pytest.raises(DataError, match="has no pairs"):
        _ = PairedImages(dataset="deep", data_dir=data_dir).train_examples
    with pytest.raises(DataError, match="no image feature 'image' .*--layout=single"):
        _ = SingleImages(dataset="small", data_dir=small_set).train_examples


def test_single_images_are_input_and_target_in_their_own_range(data_dir):
    source = SingleImages(dataset="deep", data_dir=data_dir, load_size=0, crop_size=16)
    batch = next(iter(source.batches(position_examples=0, global_batch=6)))
    np.testing.assert_array_equal(batch["input"], batch["target"])
    levels = (batch["input"].numpy() + 1) * 511.5  # [-1, 1] is [0, 1023], not what 16 bits could hold
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert levels.min() >= 0 and 900 < levels.max() <= 1023.001


def test_degradations_make_the_input_alike_in_every_evaluation(data_dir):
    augmentations = (Noise(sigma=(0.1, 0.2)), GaussianBlur(sigma=(0.5, 1.0)))
    settings = {"dataset": "deep", "data_dir": data_dir, "load_size": 0, "crop_size": 16}
    degraded = SingleImages(augmentations=augmentations, **settings)
    first, again = (next(iter(degraded.evaluation("val", batch=3))) for _ in range(2))
    clean = next(iter(SingleImages(**settings).evaluation("val", batch=3)))
    np.testing.assert_array_equal(first["input"], again["input"])
    np.testing.assert_allclose(first["target"], clean["target"], atol=1e-6)
    assert np.abs(first["input"] - clean["input"]).mean() > 0.1
    batch = next(iter(degraded.batches(position_examples=0, global_batch=6)))
    assert np.abs(batch["input"] - batch["target"]).mean() > 0.1
    assert np.abs(batch["input"]).max() <= 1


@pytest.fixture(scope="module")
def colour_set(tmp_path_factory):
    """Single pictures in 8 bits, noise in all sizes of detail."""
    data_dir = str(tmp_path_factory.mktemp("colour"))
    stored = image_encoding.StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (30, 26, 3), np.uint8) for _ in range(5)]
    write(data_dir, "noise", {"train": pictures, "val": pictures[:2]}, feature="image", stored=stored)
    return data_dir


def test_smaller_inputs_are_what_pillow_makes_of_the_targets(colour_set):
    settings = {"dataset": "noise", "data_dir": colour_set, "load_size": 0, "crop_size": (24, 20)}
    source = SingleImages(downscale=4, **settings)
    assert source.example_spec["input"].shape == (6, 5, 3)
    assert source.example_spec["target"].shape == (24, 20, 3)
    whole = next(iter(SingleImages(**settings).batches(position_examples=3, global_batch=7)))
    for batch in (
        next(iter(source.batches(position_examples=3, global_batch=7))),
        next(iter(source.evaluation("val", batch=2))),
    ):
        inputs, targets = (np.round((batch[role].numpy() + 1) * 127.5) for role in ("input", "target"))
        for small, large in zip(inputs, targets, strict=True):
            expected = Image.fromarray(large.astype(np.uint8)).resize((5, 6), Image.Resampling.BICUBIC)
            # Pillow may begin with the other axis, and rounds in between.
            np.testing.assert_allclose(small, np.asarray(expected, np.float64), rtol=0, atol=1)
        if "name" not in batch:
            np.testing.assert_array_equal(batch["target"], whole["target"])


def test_smaller_inputs_after_augmentation_stay_in_range(colour_set):
    source = SingleImages(
        dataset="noise",
        data_dir=colour_set,
        load_size=0,
        crop_size=24,
        downscale=2,
        augmentations=(GaussianBlur(sigma=(1.5, 1.5)),),
    )
    batch = next(iter(source.batches(position_examples=0, global_batch=5)))
    inputs, targets = batch["input"].numpy(), batch["target"].numpy()
    assert inputs.shape == (5, 12, 12, 3) and np.abs(inputs).max() <= 1
    halves = tf.nn.avg_pool2d(targets, 2, 2, "VALID").numpy()
    assert inputs.std() < 0.6 * halves.std()  # the input was blurred, the target was not


@pytest.mark.parametrize("downscale", [0, 3])
def test_downscale_that_does_not_divide_the_crop_is_refused(downscale):
    with pytest.raises(DataError, match=f"downscale = {downscale}: must be at least 1 and divide CROP_SIZE"):
        SingleImages(dataset="noise", crop_size=32, downscale=downscale)
