"""Colour spaces that networks see: against scikit-image and the standards, from a stored file and back."""

import numpy as np
import pytest
import skimage.color
import tensorflow as tf
from PIL import Image

from data import imaging
from data.augmentation.colour import Invert
from data.errors import DataError
from data.pairs import PairedImages
from data.preparation import tfds_writer
from data.single import SingleImages
from data.tfrecords import image_encoding
from data.unpaired import UnpairedImages

STUDIO_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]) / 255
"""Y'CbCr - (16, 128, 128) of R'G'B' in [0, 255] after BT.601, as C. Poynton prints it (Digital Video)."""


def colours(side=6):
    """Colours over the whole cube, black and white included: [side**3, 3] in [0, 1]."""
    return np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 3), -1).reshape(-1, 3)


def by_hand(rgb, space):
    """RGB in [0, 1] as networks see it, by scikit-image or by definition; nothing of the code under test."""
    if space == "rgb":
        return 2 * rgb - 1
    if space == "lab":
        return skimage.color.rgb2lab(rgb) / [50, 110, 110] - [1, 0, 0]
    if space == "ycbcr_bt601_studio":
        return (skimage.color.rgb2ycbcr(rgb) - [127.5, 128, 128]) / 127.5
    red, blue = {"ycbcr_bt601": (0.299, 0.114), "ycbcr_bt709": (0.2126, 0.0722)}[space[:11]]
    luma = rgb @ [red, 1 - red - blue, blue]
    cb, cr = (rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)
    if space.endswith("full"):
        return np.stack([2 * luma - 1, 2 * cb, 2 * cr], -1)
    return np.stack([(16 + 219 * luma - 127.5) / 127.5, 224 * cb / 127.5, 224 * cr / 127.5], -1)


@pytest.mark.parametrize("space", imaging.COLOUR_SPACES)
def test_scaling_and_back(space):
    rgb = colours()
    seen = imaging.rgb_to_space(2 * rgb - 1, space)
    # scikit-image prints its Y'CbCr matrix with six digits, and rounds a slope of L*a*b* near black.
    np.testing.assert_allclose(seen, by_hand(rgb, space), rtol=0, atol=2e-6 if space == "lab" else 2e-5)
    assert np.abs(seen).max() <= 1 + 1e-6
    greys = imaging.rgb_to_space(np.linspace(-1, 1, 9)[:, None].repeat(3, 1), space).numpy()
    if space != "rgb":
        np.testing.assert_allclose(greys[:, 1:], 0, atol=1e-4)
        assert np.all(np.diff(greys[:, 0]) > 0)
    back = imaging.space_to_rgb(seen, space)
    assert back.dtype == tf.float64
    np.testing.assert_allclose(back, 2 * rgb - 1, rtol=0, atol=1e-12)
    single = imaging.space_to_rgb(imaging.rgb_to_space((2 * rgb - 1).astype(np.float32), space), space)
    assert single.dtype == tf.float32
    np.testing.assert_allclose(single, 2 * rgb - 1, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("space", "rgb", "expected"),
    [  # of 8-bit numbers: BT.601 and BT.709 colour bars as they are printed; JPEG's red; L*a*b* tables
        ("ycbcr_bt601_studio", (1, 0, 0), (81, 90, 240)),
        ("ycbcr_bt601_studio", (0, 1, 0), (145, 54, 34)),
        ("ycbcr_bt709_studio", (1, 0, 0), (63, 102, 240)),
        ("ycbcr_bt709_studio", (0, 0, 1), (32, 240, 118)),
        ("ycbcr_bt601_full", (1, 0, 0), (76, 85, 255.5)),
        ("ycbcr_bt709_full", (1, 1, 1), (255, 128, 128)),
        ("lab", (0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_known_colours(space, rgb, expected):
    seen = imaging.rgb_to_space(2 * np.array(rgb, np.float64) - 1, space).numpy()
    numbers = (seen + [1, 0, 0]) * [50, 110, 110] if space == "lab" else seen * 127.5 + [127.5, 128, 128]
    np.testing.assert_allclose(numbers, expected, rtol=0, atol=0.01 if space == "lab" else 0.55)


def test_poynton_s_matrix():
    levels = imaging.rgb_to_space(2 * colours() - 1, "ycbcr_bt601_studio").numpy() * 127.5 + [127.5, 128, 128]
    expected = colours() * 255 @ STUDIO_RGB.T + [16, 128, 128]
    np.testing.assert_allclose(levels, expected, rtol=0, atol=2e-3)


def test_what_cannot_be_converted_is_refused():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(
        ValueError, match="'hsv': not known; choose one of: rgb, ycbcr_bt601_full, ycbcr_bt601_studio"
    ):
        imaging.rgb_to_space(x, "hsv")
    with pytest.raises(TypeError, match="bfloat16"):
        imaging.space_to_rgb(tf.cast(x, tf.bfloat16), "lab")
    with pytest.raises(ValueError, match="three channels"):
        imaging.rgb_to_space(x[:, :2], "lab")


SIZE = 24


def picture(seed):
    """Every value of every channel somewhere: uint8 [SIZE, SIZE, 3]."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(SIZE * SIZE).reshape(SIZE, SIZE) % 256 for _ in range(3)], -1).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Data sets "single" (a Pillow-written PNG), "deep" (16 bits), "pairs" (A colour, B grey) and "two"."""
    folder = tmp_path_factory.mktemp("sets")
    Image.fromarray(picture(0)).save(folder / "picture.png")
    colour = image_encoding.StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    grey = image_encoding.StoredFormat(channels=1, dtype="uint8", value_range=(0, 255))
    deep = image_encoding.StoredFormat(channels=3, dtype="uint16", value_range=(0, 65535))
    png, grey_png = (folder / "picture.png").read_bytes(), image_encoding.encode_png(picture(1)[..., :1])
    deep_png = image_encoding.encode_pixels(picture(0).astype(np.uint16) * 257, deep)
    for name, features, example, metadata in (
        ("single", {"image": colour}, {"image": png}, {}),
        ("deep", {"image": deep}, {"image": deep_png}, {}),
        ("pairs", {"A": colour, "B": grey}, {"A": png, "B": grey_png}, {}),
        ("two", {"image": colour}, {"image": png}, {"channels": {"A": 1, "B": 3}}),
    ):
        splits = ("trainA", "trainB", "testA", "testB") if name == "two" else ("train", "val")
        tfds_writer.write_dataset(
            name=name,
            data_dir=str(folder),
            features={feature: stored.feature() for feature, stored in features.items()},
            splits={split: lambda example=example: iter([{"name": "0", **example}]) for split in splits},
            metadata=lambda metadata=metadata: metadata,
            examples_per_shard=dict.fromkeys(splits, 1),
        )
    return str(folder)


def whole(data_dir, kind=SingleImages, name="single", **settings):
    return kind(dataset=name, data_dir=data_dir, load_size=0, crop_size=SIZE, flip=False, **settings)


@pytest.mark.parametrize("space", ["rgb", "ycbcr_bt601_studio", "ycbcr_bt709_full", "lab"])
def test_a_stored_picture_arrives_in_the_space_and_comes_back(data_dir, space):
    data = whole(data_dir, colour_space=space)
    expected = by_hand(picture(0) / 255, space)
    for batch in (
        next(iter(data.batches(position_examples=0, global_batch=2))),
        next(iter(data.evaluation("val", batch=2))),
    ):
        for role in ("input", "target"):
            assert batch[role].dtype == tf.float32 and batch[role].shape[1:] == (SIZE, SIZE, 3)
            for image in batch[role].numpy():
                np.testing.assert_allclose(image, expected, rtol=0, atol=3e-5)
            back = imaging.to_uint8(imaging.space_to_rgb(batch[role], space))
            np.testing.assert_array_equal(back[0], picture(0))


def test_deep_pictures_and_augmented_ones_too(data_dir):
    deep = next(iter(whole(data_dir, name="deep", colour_space="lab").evaluation("val", batch=1)))
    np.testing.assert_allclose(deep["input"][0], by_hand(picture(0) / 255, "lab"), rtol=0, atol=3e-5)
    inverted = whole(data_dir, colour_space="lab", augmentations=(Invert(probability=1.0, on="both"),))
    batch = next(iter(inverted.batches(position_examples=0, global_batch=1)))
    # Augmentations see red, green and blue.
    np.testing.assert_allclose(batch["input"][0], by_hand(1 - picture(0) / 255, "lab"), rtol=0, atol=3e-5)


def test_refused_by_name(data_dir):
    with pytest.raises(
        DataError, match="colour_space = 'yuv': not known; choose one of rgb, ycbcr_bt601_full"
    ):
        whole(data_dir, colour_space="yuv")
    pairs = whole(data_dir, PairedImages, "pairs", colour_space="lab")
    with pytest.raises(
        DataError, match=r"pairs.* needs images of 3 .* the target \(feature 'B'\) has 1; set"
    ):
        _ = pairs.example_spec
    two = whole(data_dir, UnpairedImages, "two", colour_space="ycbcr_bt709_full")
    with pytest.raises(DataError, match=r"two.* the input \(feature 'image'\) has 1"):
        _ = two.train_examples
    assert whole(data_dir, PairedImages, "pairs").example_spec["target"].shape == (SIZE, SIZE, 1)
