"""How images are stored: formats that take all images of a feature, bytes kept or re-encoded, digests."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tifffile
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from data.errors import DataError
from data.formats.image_info import ImageInfo, ImageRef
from data.formats.raw_video import VideoFormat
from data.tfrecords import image_decoding, image_encoding
from data.tfrecords.image_encoding import StoredFormat

RNG = np.random.default_rng(0)
RANGES = {"uint8": (0, 255), "uint16": (0, 65535), "float32": (-1.5, 2.0)}


def kind(channels, dtype="uint8", *, alpha=None, value_range=None):
    alpha = channels in (2, 4) if alpha is None else alpha
    value_range = value_range or (None if dtype == "float32" else RANGES[dtype])
    size = RNG.integers(1, 100, 2)
    return ImageInfo(
        height=size[0],
        width=size[1],
        channels=channels,
        alpha=alpha,
        dtype=dtype,
        value_range=value_range,
    )


def values(shape, dtype):
    if dtype == "float32":
        return RNG.uniform(-1.5, 2, shape).astype(dtype)
    return RNG.integers(0, RANGES[dtype][1], shape, dtype, endpoint=True)


def smooth(height=24, width=32):
    coarse = Image.fromarray(values((height // 4 + 1, width // 4 + 1, 3), "uint8"))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encode(path, stored, **settings):
    video = settings.pop("video", VideoFormat())
    return image_encoding.encode(
        ImageRef(str(path)), stored=stored, video=video, max_pixels=10_000, **settings
    )


def decoded(stored, value):
    """The image that the pipeline makes of a stored value."""
    if not stored.is_encoded:
        return value
    return image_decoding.decode_image(value, channels=stored.channels, dtype=stored.dtype).numpy()


def written_and_read(tmp_path, stored, value):
    """What comes of a stored value through features.json, a record, and the graph: (feature, image)."""
    features = tfds.features.FeaturesDict({"image": stored.feature(), "name": tfds.features.Text()})
    features.save_config(tmp_path)
    read = tfds.features.FeaturesDict.from_config(tmp_path)
    serializer = ExampleSerializer(features.get_serialized_info())
    record = serializer.serialize_example(features.encode_example({"image": value, "name": "a"}))

    def image(record):
        parsed = image_decoding.parse_record(read, record)
        return image_decoding.image_of(parsed, "image", read["image"])

    dataset = tf.data.Dataset.from_tensors(record).map(image)
    assert dataset.element_spec.shape.as_list() == [None, None, stored.channels]
    return read["image"], next(iter(dataset)).numpy()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_pixels_formats_and_ranges_survive_on_disk(tmp_path, dtype, channels):
    stored = StoredFormat(channels=channels, dtype=dtype, value_range=RANGES[dtype])
    pixels = values((7, 9, channels), dtype)
    value = image_encoding.encode_pixels(pixels, stored)
    feature, image = written_and_read(tmp_path, stored, value)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels)
    assert image_encoding.format_of(feature) == stored
    encoded = dtype != "float32" and channels < 5
    assert isinstance(feature, tfds.features.Image) == encoded == isinstance(value, bytes)


@pytest.mark.parametrize(
    "dtype, value_range", [("uint16", (0, 1023)), ("uint16", (64, 940)), ("float32", (-1e-3, 1e30))]
)
def test_a_part_of_a_range_survives(tmp_path, dtype, value_range):
    stored = StoredFormat(channels=1, dtype=dtype, value_range=value_range)
    tfds.features.FeaturesDict({"image": stored.feature()}).save_config(tmp_path)
    feature = tfds.features.FeaturesDict.from_config(tmp_path)["image"]
    assert image_encoding.format_of(feature) == stored


def test_formats_of_public_data_sets():
    image = tfds.features.Image(shape=(None, None, 3), doc="a photo")
    assert image_encoding.format_of(image) == StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    doc = tfds.features.Documentation(value_range="[0, 4095]")
    image = tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16, encoding_format="png", doc=doc)
    assert image_encoding.format_of(image).value_range == (0, 65535)


@pytest.mark.parametrize(
    "feature, match",
    [
        (tfds.features.Image(shape=(None, None, None)), "not an image with a known number of channels"),
        (tfds.features.Tensor(shape=(4, 4), dtype=np.uint8), "not an image with a known number of channels"),
        (
            tfds.features.Tensor(shape=(4, 4, 3), dtype=np.int32),
            "not an image with a known number of channels",
        ),
        (tfds.features.Tensor(shape=(4, 4, 3), dtype=np.float32), "without a stored value range"),
        (tfds.features.Image(shape=(4, 4, 1), dtype=np.float32), "as the bytes of a PNG are not supported"),
    ],
)
def test_features_without_a_format(feature, match):
    with pytest.raises(DataError, match=match):
        image_encoding.format_of(feature)


@pytest.mark.parametrize(
    "kinds, channels, dtype, value_range",
    [
        ([kind(1)], 1, "uint8", (0, 255)),
        ([kind(1), kind(3), kind(1)], 3, "uint8", (0, 255)),
        ([kind(1), kind(2)], 2, "uint8", (0, 255)),
        ([kind(3), kind(2)], 4, "uint8", (0, 255)),
        ([kind(1), kind(4)], 4, "uint8", (0, 255)),
        ([kind(3), kind(1, "uint16")], 3, "uint16", (0, 65535)),
        ([kind(3, "uint16", value_range=(0, 1023))] * 2, 3, "uint16", (0, 1023)),
        ([kind(7)] * 2, 7, "uint8", (0, 255)),
        ([kind(2, alpha=False)] * 2, 2, "uint8", (0, 255)),
    ],
)
def test_common_format(kinds, channels, dtype, value_range):
    for order in itertools.permutations(kinds):
        found = image_encoding.common_format(iter(order))
        assert found == StoredFormat(channels=channels, dtype=dtype, value_range=value_range)


def test_a_given_value_range():
    found = image_encoding.common_format([kind(1, "float32"), kind(3, "float32")], value_range=(0.0, 2.5))
    assert found == StoredFormat(channels=3, dtype="float32", value_range=(0.0, 2.5))
    found = image_encoding.common_format([kind(1, "uint16")], value_range=[0, 4095])
    assert found.value_range == (0, 4095)


@pytest.mark.parametrize(
    "kinds, settings, match",
    [
        ([], {}, "no images"),
        ([kind(1, "float32")], {}, "float32 images need their value range"),
        ([kind(1, "float32"), kind(1)], {"value_range": (0, 1)}, "of float32 and uint8 are mixed"),
        (
            [kind(1, "uint16"), kind(1, "uint16", value_range=(0, 1023))],
            {},
            "0 to 1023 and 0 to 65535 are mixed",
        ),
        ([kind(1), kind(1, "uint16", value_range=(0, 1023))], {}, "values 0 to 255 and 0 to 1023 are mixed"),
        ([kind(1), kind(1, "uint16")], {"value_range": (0, 200)}, "one value range is given for"),
        ([kind(5), kind(6)], {}, "of 5, 6 channels are mixed"),
        (
            [kind(3), kind(4, alpha=False)],
            {},
            "of 3, 4 channels are mixed, and 4 channels are neither",
        ),
        ([kind(4), kind(4, alpha=False)], {}, "of 4 channels are mixed"),
        ([kind(1)], {"value_range": (0, 256)}, "value range 0 to 256: must be two numbers that uint8"),
        ([kind(1)], {"value_range": (9, 9)}, "value range 9 to 9"),
        ([kind(1, "float32")], {"value_range": (0, float("inf"))}, "value range 0 to inf"),
        ([kind(1, "float32")], {"value_range": (float("nan"), 1)}, "value range nan to 1"),
    ],
)
def test_kinds_without_a_common_format(kinds, settings, match):
    with pytest.raises(DataError, match=match) as raised:
        image_encoding.common_format(kinds, **settings)
    assert "\n" not in str(raised.value)


def converted(pixels, stored):
    """The conversion by its definition, pixel by pixel."""
    top = 1.0 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    result = np.empty((*pixels.shape[:2], stored.channels), stored.dtype)
    for place in np.ndindex(pixels.shape[:2]):
        found = list(pixels[place])
        alpha = [found.pop()] if len(found) in (2, 4) else [top]
        colours = found * 3 if stored.channels > 2 and len(found) == 1 else found
        scale = 257 if pixels.dtype == np.uint8 and stored.dtype == "uint16" else 1
        wanted = colours + alpha if stored.channels in (2, 4) else colours
        result[place] = [np.asarray(value, stored.dtype) * scale for value in wanted]
    return result


@pytest.mark.parametrize("dtype, stored_dtype", [("uint8",) * 2, ("uint8", "uint16"), ("uint16",) * 2])
@pytest.mark.parametrize(
    "channels, stored_channels",
    [(1, 1), (1, 2), (1, 3), (1, 4), (2, 2), (2, 4), (3, 3), (3, 4), (4, 4)],
)
def test_png_files_in_every_format_that_takes_them(tmp_path, dtype, stored_dtype, channels, stored_channels):
    pixels = values((5, 6, channels), dtype)
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(pixels).numpy())
    stored = StoredFormat(channels=stored_channels, dtype=stored_dtype, value_range=RANGES[stored_dtype])
    encoded = encode(tmp_path / "a.png", stored)
    expected = converted(pixels, stored)
    np.testing.assert_array_equal(decoded(stored, encoded.value), expected)
    assert encoded.digest == image_encoding.pixels_digest(expected)
    # TensorFlow widens 8 bits and repeats grey itself; two channels it gives only as they are.
    if (channels, dtype) == (stored_channels, stored_dtype):
        assert encoded.kept
    if encoded.kept:
        assert encoded.value == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    "name, options, channels, kept",
    [
        ("a.jpg", {}, 3, True),
        ("a.jpg", {"exif": "oriented"}, 3, False),
        ("grey.jpg", {}, 1, True),
        ("grey.jpg", {}, 3, True),
        ("grey.jpg", {}, 4, False),
        ("cmyk.jpg", {}, 3, None),  # TensorFlow may round as Pillow does or not
        ("palette.png", {}, 3, True),
        ("a.png", {}, 3, True),
        ("a.png", {"exif": "oriented"}, 3, False),
        ("a.bmp", {}, 3, False),
        ("a.gif", {}, 3, False),
        ("a.webp", {}, 3, False),
        ("a.tif", {}, 3, False),
    ],
)
def test_bytes_are_kept_where_they_give_the_same_pixels(tmp_path, name, options, channels, kept):
    modes = {"grey.jpg": "L", "cmyk.jpg": "CMYK", "palette.png": "P"}
    image = smooth().convert(modes.get(name, "RGB"))
    if name == "cmyk.jpg":
        image = Image.merge("CMYK", [*image.split()[:3], smooth().convert("L")])
    if options:
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    image.save(tmp_path / name, **options)
    stored = StoredFormat(channels=channels, dtype="uint8", value_range=(0, 255))
    encoded = encode(tmp_path / name, stored)
    assert (
        encoded.kept
        == (encoded.kept if kept is None else kept)
        == (encoded.value == (tmp_path / name).read_bytes())
    )
    with Image.open(tmp_path / name) as shown:
        shown = np.asarray(shown.convert("RGBA" if channels == 4 else "L" if channels == 1 else "RGB"))
    shown = np.rot90(shown, -1) if options else shown
    np.testing.assert_array_equal(
        image_decoding.decode_image(encoded.value, channels=channels).numpy().squeeze(), shown
    )


def test_a_jpeg_beside_deep_pictures(tmp_path):
    smooth().save(tmp_path / "a.jpg")
    stored = StoredFormat(channels=3, dtype="uint16", value_range=RANGES["uint16"])
    encoded = encode(tmp_path / "a.jpg", stored)
    with Image.open(tmp_path / "a.jpg") as shown:
        expected = np.asarray(shown).astype(np.uint16) * 257
    np.testing.assert_array_equal(decoded(stored, encoded.value), expected)
    assert not encoded.kept


@pytest.mark.parametrize("channels, stored_channels", [(1, 1), (1, 3), (3, 3), (3, 4), (6, 6)])
def test_floats(tmp_path, channels, stored_channels):
    pixels = values((5, 6, channels), "float32")
    layout = {"planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **layout)
    stored = StoredFormat(channels=stored_channels, dtype="float32", value_range=RANGES["float32"])
    encoded = encode(tmp_path / "a.tif", stored)
    expected = pixels if channels == 6 else converted(pixels, stored)
    np.testing.assert_array_equal(decoded(stored, encoded.value), expected)


@pytest.mark.parametrize(
    "value, match",
    [
        (np.nan, "not finite"),
        (-np.inf, "not finite"),
        (2.1, "has values from 0 to 2.1, outside the value range -1.5 to 2"),
        (-1.6, "has values from -1.6 to 0, outside"),
    ],
)
def test_floats_outside_their_range(tmp_path, value, match):
    pixels = np.zeros((4, 5), np.float32)
    pixels[2, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    stored = StoredFormat(channels=1, dtype="float32", value_range=RANGES["float32"])
    with pytest.raises(DataError, match=match) as raised:
        encode(tmp_path / "a.tif", stored)
    assert str(tmp_path / "a.tif") in str(raised.value)


def test_12_bits_in_16(tmp_path):
    stored = StoredFormat(channels=1, dtype="uint16", value_range=(0, 4095))
    for highest in (4095, 4096):
        pixels = np.full((4, 5), highest, np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        if highest == 4095:
            image = decoded(stored, encode(tmp_path / "a.tif", stored).value)
            np.testing.assert_array_equal(image[..., 0], pixels)
        else:
            with pytest.raises(
                DataError, match="values from 4096 to 4096, outside the value range 0 to 4095"
            ):
                encode(tmp_path / "a.tif", stored)


@pytest.mark.parametrize(
    "channels, dtype, stored, match",
    [
        (3, "uint8", (1, "uint8"), "3 channels cannot become 1 without loss"),
        (4, "uint8", (3, "uint8"), "has transparent parts, which 3 channels cannot store"),
        (2, "uint8", (1, "uint8"), "has transparent parts"),
        (2, "uint8", (3, "uint8"), "has transparent parts"),
        (3, "uint8", (5, "uint8"), "3 channels cannot become 5"),
        (3, "uint16", (3, "uint8"), "uint16 cannot become uint8"),
        (3, "uint8", (3, "float32"), "uint8 cannot become float32"),
    ],
)
def test_formats_that_would_lose_something(tmp_path, channels, dtype, stored, match):
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(values((5, 6, channels), dtype)).numpy())
    stored = StoredFormat(channels=stored[0], dtype=stored[1], value_range=RANGES[stored[1]])
    with pytest.raises(DataError, match=match) as raised:
        encode(tmp_path / "a.png", stored)
    assert str(raised.value).startswith(f"{tmp_path / 'a.png'}: ")


def test_frames_of_a_video(tmp_path):
    frames = RNG.integers(0, 1024, (3, 24), np.uint16)
    (tmp_path / "a.yuv").write_bytes(frames.astype("<u2").tobytes())
    video = VideoFormat(size=(4, 2), pixel_format="yuv444p10", colours="ycbcr")
    stored = StoredFormat(channels=3, dtype="uint16", value_range=(0, 1023))
    for k, frame in enumerate(frames):
        ref = ImageRef(str(tmp_path / "a.yuv"), k)
        encoded = image_encoding.encode(ref, stored=stored, video=video, max_pixels=100)
        image = decoded(stored, encoded.value)
        np.testing.assert_array_equal(np.moveaxis(image, -1, 0), frame.reshape(3, 2, 4))


def test_digests_tell_pixels_not_files(tmp_path):
    image = smooth(24, 32)
    stored = StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    digests = set()
    for name in ("a.png", "b.bmp", "c.tif"):
        image.save(tmp_path / name)
        digests.add(encode(tmp_path / name, stored).digest)
    assert len(digests) == 1 and len(digests.pop()) == 16
    pixels = np.zeros((4, 6, 3), np.uint8)
    others = [pixels.reshape(6, 4, 3), pixels.astype(np.uint16), pixels[:, :, :1], pixels.copy()]
    others[-1][3, 5, 2] = 1
    assert len({image_encoding.pixels_digest(found) for found in [pixels, *others]}) == 5


def test_digests_of_halves(tmp_path):
    a, b = (values((5, 6, 3), "uint8") for _ in range(2))
    stored = StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    Image.fromarray(np.concatenate([a, b], axis=1)).save(tmp_path / "ab.png")
    digest = encode(tmp_path / "ab.png", stored, halves=True).digest
    assert digest == image_encoding.pixels_digest(a) + image_encoding.pixels_digest(b)


def test_what_the_pipeline_could_not_decode_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_encoding, "_DECODABLE_PIXELS", 24 * 32)
    smooth(24, 32).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="a.png: is 32x24, too large for TensorFlow; split it"):
        encode(tmp_path / "a.png", StoredFormat(channels=3, dtype="uint8", value_range=(0, 255)))


def test_encode_pixels_takes_only_what_the_format_says():
    stored = StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))
    for wrong in (np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3), np.uint16)):
        with pytest.raises(ValueError, match="are not of StoredFormat"):
            image_encoding.encode_pixels(wrong, stored)


def test_two_channels_are_decoded_only_if_stored():
    grey = tf.io.encode_png(np.zeros((4, 4, 1), np.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError):
        image_decoding.decode_image(grey, channels=2)
