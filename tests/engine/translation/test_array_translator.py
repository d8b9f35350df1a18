"""A run in a notebook: what arrays, tensors, Pillow images and paths mean, and what comes back."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.description import ImageFormat
from data.errors import DataError
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.batch_function import BatchFunction
from engine.inference.translator import Translator
from engine.pictures.role_format import RoleFormat
from engine.pictures.side_inputs import SideMaps
from engine.pictures.trained_size import TrainedSize
from engine.translation.array_translator import ArrayTranslator
from engine.translation.limits import Limits

COLOUR = ImageFormat(channels=3, dtype="uint8", value_range=(0, 255))


def refuse_odd(height, width):
    if height % 2 or width % 2:
        raise ConfigurationError(f"the network does not take {height}x{width}; resize the picture")


def negative(pictures, maps, codes):
    """The negative of a picture, plus the mean of its code, plus its map."""
    result = -pictures
    if codes is not None:
        result += tf.reduce_mean(codes, axis=1)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return result if maps is None else result + maps


def run_of(stored=COLOUR, memory_gib=2.0, translate=negative, **changes):
    """A run whose network inverts pictures: white becomes black."""
    fields = {
        "description": "runs/negative at 8 examples",
        "input": RoleFormat(channels=stored.channels, stored=stored),
        "output": RoleFormat(channels=stored.channels, stored=stored),
        "check_size": refuse_odd,
        "translate": lambda pictures, maps, codes, positions: translate(pictures, maps, codes),
        "compiled": BatchFunction(lambda pictures, maps, codes, positions: negative(pictures, maps, codes)),
    }
    return ArrayTranslator(Translator(**fields | changes), Limits(memory_gib=memory_gib))


def noise(*shape, dtype=np.uint8, high=255, seed=0):
    return np.random.default_rng(seed).integers(0, high + 1, shape).astype(dtype)


def refusal(function, *arguments, error=ConfigurationError, **kwargs):
    with pytest.raises(error) as caught:
        function(*arguments, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_picture_in_every_form_gives_the_same(tmp_path):
    pixels, run = noise(6, 8, 3), run_of()
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    image = Image.fromarray(pixels)
    forms = [pixels, tf.Variable(pixels), tf.constant(pixels), image, path, str(path)]
    for picture in forms:
        result = run.translate(picture)
        assert isinstance(result, np.ndarray) and result.dtype == np.uint8
        np.testing.assert_array_equal(result, 255 - pixels)
    results = run.translate(forms)
    assert isinstance(results, list) and len(results) == len(forms)
    for result in results:
        np.testing.assert_array_equal(result, 255 - pixels)


def test_pictures_of_one_size_go_through_the_network_together():
    shapes = []

    def recorded(pictures, maps, codes):
        shapes.append(tuple(pictures.shape))
        return negative(pictures, maps, codes)

    run = run_of(translate=recorded)
    batch = noise(20, 256, 256, 3)
    np.testing.assert_array_equal(run.translate(batch), 255 - batch)
    assert [shape[0] for shape in shapes] == [8, 8, 4]
    shapes.clear()
    mixed = [noise(*size, 3, seed=n) for n, size in enumerate([(2, 4), (2, 4), (4, 2), (2, 4), (103, 100)])]
    for result, picture in zip(run.translate(mixed), mixed, strict=True):
        np.testing.assert_array_equal(result, 255 - picture)
    # Each padded to what the network takes.
    assert [shape[:3] for shape in shapes] == [(2, 2, 4), (1, 4, 2), (1, 2, 4), (1, 104, 100)]
    assert run.translate(batch[:1]).shape == (1, 256, 256, 3)  # a batch of one stays a batch


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "bfloat16"])
def test_floats_need_their_range(dtype):
    pixels, run = noise(4, 4, 3), run_of()

    def cast(values):
        return tf.cast(values, tf.bfloat16) if dtype == "bfloat16" else values.astype(dtype)

    exact = 1 if dtype in (np.float32, np.float64) else 255 / 2**8
    for low, high in ((0, 1), (-1, 1), (0, 255), (16, 235)):
        values = cast(low + pixels.astype(np.float64) / 255 * (high - low))
        result = run.translate(values, value_range=(low, high)).astype(int)
        assert result.shape == (4, 4, 3)
        assert np.abs(result - (255 - pixels.astype(int))).max() <= (0 if exact == 1 else 1), (low, high)
    name = "float32" if dtype == "bfloat16" else np.dtype(dtype).name
    message = refusal(run.translate, cast(pixels / 255))
    assert message == (
        f"the picture: is an array of {name}, which does not say which values are black and white; give "
        "value_range=(0, 1) or (-1, 1)"
    )


def test_values_outside_their_range_are_refused():
    run, pixels = run_of(), noise(4, 4, 3).astype(np.float32)
    message = refusal(run.translate, [pixels / 255, pixels], value_range=(0, 1))
    assert message.startswith("pictures[1]: has values from 0 to 2") and "value_range = (0, 1)" in message
    rounded = np.float32([[[1 + 1e-6, -1e-6, 0.5]]]).repeat(2, 0).repeat(2, 1)
    assert run.translate(rounded, value_range=(0, 1))[0, 0].tolist() == [0, 255, 128]
    for wrong in ((1, 0), (0, 0), 1, "ab", (0, np.inf), (0, 1, 2)):
        assert "must be the values of black and white" in refusal(run.translate, pixels, value_range=wrong)
    assert "not finite" in refusal(run.translate, pixels * np.nan, value_range=(0, 1), error=DataError)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.int64, np.uint32])
def test_other_integers_do_not_say_what_they_mean(dtype):
    run, pixels = run_of(), noise(4, 4, 3)
    message = refusal(run.translate, pixels.astype(dtype))
    assert np.dtype(dtype).name in message and "convert it to uint8 (0 to 255)" in message
    if dtype is not bool:
        found = run.translate(pixels.astype(dtype), value_range=(0, 255))
        np.testing.assert_array_equal(found, 255 - pixels)


def test_16_bits_stay_16_bits(tmp_path):
    run, pixels = run_of(), noise(4, 4, 3, dtype=np.uint16, high=65535)
    result = run.translate(pixels)
    assert result.dtype == np.uint16
    # float32 in [-1, 1] has 24 bits.
    np.testing.assert_allclose(result, 65535 - pixels.astype(int), rtol=0, atol=1)
    grey = Image.fromarray(pixels[..., 0])
    assert grey.mode == "I;16"
    np.testing.assert_allclose(
        run.translate(grey)[..., 1], 65535 - pixels[..., 0].astype(int), rtol=0, atol=1
    )
    expected = 255 - np.round(pixels / 257).astype(int)
    np.testing.assert_allclose(run.translate(pixels, dtype="uint8"), expected, rtol=0, atol=1)


def test_integers_have_the_values_of_the_data_set():
    ten_bits = ImageFormat(channels=1, dtype="uint16", value_range=(0, 1023))
    run, pixels = run_of(ten_bits), noise(4, 4, 1, dtype=np.uint16, high=1023)
    result = run.translate(pixels[..., 0])
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, 1023 - pixels)
    message = refusal(run.translate, pixels * 2, error=DataError)
    assert (
        message.startswith("the picture: has values from") and "outside the value range 0 to 1023" in message
    )
    message = refusal(run.translate, pixels.astype(np.uint8), error=DataError)
    assert "uint8 values, but the run was trained on uint16 of 0 to 1023" in message


def test_a_run_on_floats_names_their_range():
    heights = ImageFormat(channels=1, dtype="float32", value_range=(-10, 300))
    run = run_of(heights)
    values = np.linspace(-20, 300, 16, dtype=np.float32).reshape(4, 4, 1)  # outside is no limit, as in files
    assert "or (-10, 300) if they are values as in the run's data set" in refusal(run.translate, values)
    result = run.translate(values, value_range=(-10, 300))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 290 - values, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "dtype, expected", [("uint8", [255, 204, 0]), ("uint16", [65535, 52428, 0]), ("float32", [1, 0.6, -1])]
)
def test_the_dtype_that_is_asked_for(dtype, expected):
    result = run_of().translate(np.uint8([[[0, 51, 255]] * 2] * 2), dtype=dtype)
    assert result.dtype == dtype
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-6)
    assert "dtype = 'int8': unknown; use one of uint8" in refusal(run_of().translate, result, dtype="int8")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "RGBA", "LA"])
def test_pillows_images_are_read_as_their_files(tmp_path, mode):
    image = Image.fromarray(noise(4, 6, 3)).convert(mode)
    if "A" in mode:
        image.putalpha(255)  # opaque, so it says nothing
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    image.save(path)
    from_file = run_of().translate(path)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(run_of().translate(opened), from_file)
    if path.suffix == ".png":
        np.testing.assert_array_equal(run_of().translate(image), from_file)


def test_the_orientation_of_a_photo_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / "x.jpg", exif=exif, quality=100)
    with Image.open(tmp_path / "x.jpg") as opened:
        result = run_of().translate(opened)
    assert result.shape == (6, 4, 3)
    np.testing.assert_array_equal(result, run_of().translate(tmp_path / "x.jpg"))


def test_channels_as_of_a_file(capsys):
    run, grey = run_of(), noise(4, 4)
    for _ in range(2):
        np.testing.assert_array_equal(run.translate(grey), np.repeat(255 - grey[..., np.newaxis], 3, -1))
    assert capsys.readouterr().out == "note: the picture is grey, repeated to 3 channels\n"  # once
    opaque = np.concatenate([noise(4, 4, 3), np.full((4, 4, 1), 255, np.uint8)], -1)
    np.testing.assert_array_equal(run.translate(opaque), 255 - opaque[..., :3])
    signed = opaque / 127.5 - 1
    np.testing.assert_array_equal(run.translate(signed, value_range=(-1, 1)), 255 - opaque[..., :3])
    transparent = noise(4, 4, 4)
    found = run.translate(transparent)  # carried over
    np.testing.assert_array_equal(found[..., :3], 255 - transparent[..., :3])
    np.testing.assert_array_equal(found[..., 3], transparent[..., 3])
    signed = run.translate(transparent / 127.5 - 1, value_range=(-1, 1), dtype="float32")
    np.testing.assert_allclose(signed[..., 3], transparent[..., 3] / 127.5 - 1, rtol=0, atol=1e-6)
    message = refusal(run.translate, noise(3, 4, 8))
    assert (
        message == "the picture: has the shape [3, 4, 8], but channels come last; transpose it to [H, W, C]"
    )
    four = ImageFormat(channels=4, dtype="uint8", value_range=(0, 255))  # four channels of data
    data = noise(4, 4, 4)
    np.testing.assert_array_equal(run_of(four).translate(data), 255 - data)
    with_alpha = dataclasses.replace(four, alpha=True)
    np.testing.assert_array_equal(run_of(with_alpha).translate(data), 255 - data)
    assert run_of(with_alpha).translate(opaque[..., :3])[..., 3].max() == 0  # made opaque


@pytest.mark.parametrize(
    "pictures, expected",
    [
        ([], "pictures: are none"),
        (np.zeros((0, 4, 4, 3), np.uint8), "pictures: are none"),
        (np.zeros((0, 4, 3), np.uint8), "has the shape [0, 4, 3]"),
        (np.zeros(4, np.uint8), "has the shape [4]"),
        (np.zeros((1, 1, 1, 1, 1), np.uint8), "has the shape [1, 1, 1, 1, 1]"),
        ([np.zeros((1, 4, 4, 3), np.uint8)], "pictures[0]: has the shape [1, 4, 4, 3]"),
        (None, "the picture: is no picture but NoneType"),
        ({"a": 1}, "the picture: is no picture but dict"),
        ([object()], "pictures[0]: is no picture but object"),
        (Image.new("F", (4, 4)), "the picture: Pillow images of mode F are not supported"),
    ],
)
def test_what_is_no_picture(pictures, expected):
    error = DataError if isinstance(pictures, Image.Image) else ConfigurationError
    assert expected in refusal(run_of().translate, pictures, error=error)


def test_paths_that_cannot_be_read(tmp_path):
    path = tmp_path / "absent.png"
    assert refusal(run_of().translate, path, error=DataError).startswith(f"{path}: does not exist")
    assert "is not a file" in refusal(run_of().translate, tmp_path, error=DataError)
    Image.fromarray(noise(4, 4, 3)).save(path)
    message = refusal(run_of().translate, path, value_range=(0, 1))
    assert f"goes with arrays, but {path} is a file or a Pillow image" in message


def test_an_output_that_is_not_finite_names_its_picture():
    run = run_of(translate=lambda x, maps, codes: x / tf.reduce_max(x + 1, [1, 2, 3], keepdims=True))
    batch = np.stack([noise(4, 4, 3), np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(NonFiniteOutputError, match=r"^pictures\[1\]: "):
        run.translate(batch)


def test_codes():
    run = run_of(latent_size=2, encode=lambda x: tf.reduce_mean(x, [1, 2])[:, :2])
    batch = noise(3, 4, 4, 3)
    codes = np.float32([[0.25, 0.75], [-1, 0], [0, 0]])
    floats = run.translate(batch, code=codes, dtype="float32")
    expected = 1 - batch / 127.5 + np.float32([0.5, -0.5, 0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(floats, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(run.translate(batch[0], code=codes[0], dtype="float32"), floats[0])
    same = run.translate(batch, code=codes[1], dtype="float32")
    np.testing.assert_allclose(same, 0.5 - batch / 127.5, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(run.translate(batch), 255 - batch)
    means = batch.mean((1, 2))[:, :2] / 127.5 - 1
    np.testing.assert_allclose(run.encode(batch), means, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.encode(batch[1]), means[1], rtol=0, atol=1e-6)
    for wrong in (np.zeros(3), np.zeros((2, 2)), [np.nan, 0]):
        assert "[2], or [3, 2] for each picture its own" in refusal(run.translate, batch, code=wrong)
    assert "does not take 3x4" in refusal(run.encode, noise(3, 4, 3))
    assert "take none; leave it out" in refusal(run_of().translate, batch, code=codes)
    assert "take no code" in refusal(run_of().encode, batch)
    assert (run.latent_size, run_of().latent_size) == (2, 0)


def test_maps_come_with_the_pictures(tmp_path):
    run = run_of(
        side_maps=SideMaps(None, RoleFormat(channels=1, stored=dataclasses.replace(COLOUR, channels=1)))
    )
    batch, maps = noise(2, 4, 4, 3), noise(2, 4, 4, 1, seed=1)
    floats = run.translate(batch, side_map=maps, dtype="float32")
    np.testing.assert_allclose(floats, maps / 127.5 - batch / 127.5, rtol=0, atol=1e-6)
    path = tmp_path / "map.png"
    Image.fromarray(maps[1, ..., 0]).save(path)
    signed = batch[1] / 127.5 - 1
    one = run.translate(signed, value_range=(-1, 1), side_map=path, dtype="float32")
    np.testing.assert_allclose(one, floats[1], rtol=0, atol=1e-6)
    assert "one for each picture" in refusal(run.translate, batch)
    assert "side_map: 1 for 2 pictures" in refusal(run.translate, batch, side_map=maps[:1])
    message = refusal(run.translate, [batch[0]], side_map=[maps[0, :2]])
    assert message == "side_map[0]: is a map of 4x2 for a picture of 4x4; give both the same size"
    assert "take none; leave it out" in refusal(run_of().translate, batch, side_map=maps)


def test_resized_as_in_training():
    size = TrainedSize(height=8, width=8, loaded=(8, 8))
    run = run_of(input=RoleFormat(channels=3, stored=COLOUR, size=size))
    flat = np.full((5, 7, 3), 100, np.uint8)
    np.testing.assert_array_equal(run.translate(flat, resize="as_trained"), 255 - flat)
    picture = np.asarray(Image.fromarray(noise(8, 8, 3)).resize((24, 16), Image.Resampling.BICUBIC))
    found = run.translate(picture, resize="as_trained").astype(int)
    assert found.shape == (16, 24, 3)
    down = Image.fromarray(picture).resize((8, 8), Image.Resampling.BICUBIC)
    up = 255 - np.asarray(down.resize((24, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(found - up).max() <= 2
    assert "resize = 'up': unknown; use one of none, as_trained" in refusal(run.translate, flat, resize="up")
    # Where training left pictures at their size, it changes nothing.
    np.testing.assert_array_equal(run_of().translate(picture, resize="as_trained"), 255 - picture)


def test_large_pictures_are_translated_in_tiles():
    shapes = []

    def recorded(pictures, maps, codes):
        shapes.append(tuple(pictures.shape))
        return negative(pictures, maps, codes)

    picture = noise(600, 500, 3)
    found = run_of(memory_gib=2e-4, translate=recorded).translate(picture)
    np.testing.assert_array_equal(found, 255 - picture)
    assert max(height * width for _, height, width, _ in shapes) < 600 * 500 / 4
