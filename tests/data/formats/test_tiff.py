"""TIFF files of every kind that is read, against the arrays they were made of and against Pillow."""

import io
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from data.errors import DataError
from data.formats import image_reader, tiff
from data.formats.image_info import ImageInfo, ImageRef
from data.formats.raw_video import VideoFormat

RNG = np.random.default_rng(0)
VIDEO = VideoFormat()


def read(path, max_pixels=10_000):
    """(kind of the header, pixels), having checked that they agree."""
    ref = ImageRef(str(path))
    kind = image_reader.read_info(ref, video=VIDEO, max_pixels=max_pixels)
    pixels = image_reader.read_pixels(ref, video=VIDEO, max_pixels=max_pixels)
    assert (kind.height, kind.width, kind.channels) == pixels.shape
    assert kind.dtype == pixels.dtype.name
    return kind, pixels


def refused(path, match, **settings):
    """Asserts that a file is refused in one line that names it, by its header and by its pixels."""
    for call in (image_reader.read_info, image_reader.read_pixels):
        with pytest.raises(DataError, match=match) as raised:
            call(ImageRef(str(path)), video=VIDEO, max_pixels=settings.get("max_pixels", 10_000))
        assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def values(shape, dtype):
    """Noise over the whole range of a dtype; smooth along rows, so that it can be compressed."""
    if np.dtype(dtype).kind == "f":
        return (RNG.normal(size=shape) * 1000).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_number_of_channels(tmp_path, dtype, channels, planes):
    pixels = values((7, 9, channels), dtype)
    stored = (
        pixels[..., 0] if channels == 1 else np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
    )
    layout = {"planarconfig": planes} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", metadata=None, **layout)
    kind, read_pixels = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_pixels, pixels)
    value_range = {"uint8": (0, 255), "uint16": (0, 65535), "float32": None}[dtype]
    assert kind == ImageInfo(height=7, width=9, channels=channels, dtype=dtype, value_range=value_range)


@pytest.mark.parametrize(
    "settings",
    [
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "packbits"},
        {"compression": "zstd"},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 3, "compression": "lzw"},
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_compression_and_layout(tmp_path, dtype, settings):
    pixels = values((20, 33, 3), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **settings)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1], pixels)


def test_half_floats_are_widened(tmp_path):
    pixels = values((4, 5), "float16")
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    kind, read_pixels = read(tmp_path / "a.tif")
    assert kind.dtype == "float32"
    np.testing.assert_array_equal(read_pixels[..., 0], pixels.astype(np.float32))


@pytest.mark.parametrize(
    "mode, compression",
    [
        *itertools.product(["1", "L", "P", "RGB", "I;16", "F"], [None, "tiff_lzw", "tiff_adobe_deflate"]),
        *itertools.product(["L", "RGB", "YCbCr"], ["jpeg"]),
    ],
)
def test_what_pillow_writes(tmp_path, mode, compression):
    colours = Image.fromarray(values((6, 11, 3), "uint8")).resize((33, 18), Image.Resampling.BICUBIC)
    if mode in ("I;16", "F"):
        image = Image.fromarray(values((18, 33), {"I;16": "uint16", "F": "float32"}[mode]))
    else:
        image = colours.convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as shown:
        shown = np.asarray(shown.convert({"1": "L", "P": "RGB", "YCbCr": "RGB"}.get(mode, mode)))
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1].squeeze(), shown)


def test_white_can_be_zero(tmp_path):
    pixels = values((5, 6), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1][..., 0], 65535 - pixels)


def test_palette_of_16_bits_is_not_cut(tmp_path):
    colours = values((3, 256), "uint16")
    indices = values((5, 6), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=colours)
    kind, pixels = read(tmp_path / "a.tif")
    assert (kind.dtype, kind.channels, kind.value_range) == ("uint16", 3, (0, 65535))
    np.testing.assert_array_equal(pixels, colours.T[indices])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    image = Image.fromarray(values((4, 7, 3), "uint8"))
    image.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1], shown)


def write_alpha(path, pixels, alpha):
    photometric = "rgb" if pixels.shape[-1] > 2 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=photometric, planarconfig="contig", extrasamples=[alpha])


@pytest.mark.parametrize("dtype, opaque", [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
@pytest.mark.parametrize("colours", [1, 3])
def test_transparency(tmp_path, dtype, opaque, colours):
    pixels = values((5, 6, colours + 1), dtype)
    write_alpha(tmp_path / "clear.tif", pixels, "unassalpha")
    kind, read_pixels = read(tmp_path / "clear.tif")
    assert kind.alpha and kind.channels == colours + 1
    np.testing.assert_array_equal(read_pixels, pixels)

    pixels[..., -1] = opaque
    for alpha in ("unassalpha", "assocalpha"):
        write_alpha(tmp_path / "opaque.tif", pixels, alpha)
        kind, read_pixels = read(tmp_path / "opaque.tif")
        assert not kind.alpha
        np.testing.assert_array_equal(read_pixels, pixels[..., :-1])

    write_alpha(tmp_path / "data.tif", pixels, "unspecified")
    kind, read_pixels = read(tmp_path / "data.tif")
    assert not kind.alpha and kind.channels == colours + 1
    np.testing.assert_array_equal(read_pixels, pixels)


def test_premultiplied_transparency_is_refused(tmp_path):
    write_alpha(tmp_path / "a.tif", values((5, 6, 4), "uint8"), "assocalpha")
    refused(tmp_path / "a.tif", r"multiplied by their transparency; save it with straight")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float64", "complex64"])
def test_refused_dtypes(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 5), dtype), photometric="minisblack")
    refused(tmp_path / "a.tif", rf"holds {dtype} values; convert it to uint8, uint16 or float32")


def test_refused_depth(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 8), "uint16"), bitspersample=12)
    refused(tmp_path / "a.tif", "holds uint16 in 12 bits values; convert it")


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr"])
def test_refused_colours(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "colours of uint8 values are not supported; convert it to grey or RGB")


def test_several_pages(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values((2, 5, 6, 3), "uint8"), photometric="rgb")
    refused(tmp_path / "a.tif", "holds 2 pages; save each in its own file")
    # One directory that stands for all images.
    tifffile.imwrite(tmp_path / "b.tif", values((7, 5, 6), "uint8"), imagej=True, truncate=True)
    refused(tmp_path / "b.tif", "holds 7 pages")
    tifffile.imwrite(tmp_path / "c.tif", values((4, 5, 6), "uint8"), photometric="minisblack", truncate=True)
    refused(tmp_path / "c.tif", "holds 4 pages")
    tifffile.imwrite(tmp_path / "d.tif", values((16, 16, 16), "uint8"), volumetric=True, tile=(16, 16, 16))
    refused(tmp_path / "d.tif", "has the axes ZYX")


def test_a_thumbnail_behind_the_picture_is_no_second_page(tmp_path):
    pixels = values((10, 12), "uint8")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, metadata=None)
        file.write(pixels[::2, ::2], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[1][..., 0], pixels)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("settings", [{}, {"rowsperstrip": 4}, {"tile": (16, 16)}])
def test_truncated(tmp_path, compression, settings):
    file = io.BytesIO()
    tifffile.imwrite(file, values((32, 33), "uint16"), compression=compression, metadata=None, **settings)
    for kept in (0.1, 0.6, 0.99):
        (tmp_path / "a.tif").write_bytes(file.getvalue()[: int(len(file.getvalue()) * kept)])
        refused(tmp_path / "a.tif", "damaged image")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
@pytest.mark.parametrize(
    "settings, larger",
    [({"rowsperstrip": 16}, [257]), ({"rowsperstrip": 16}, [257, 278]), ({"tile": (16, 16)}, [256, 322])],
)
def test_compressed_pixels_that_end_early(tmp_path, compression, settings, larger):
    tifffile.imwrite(
        tmp_path / "a.tif", values((16, 16), "uint8"), compression=compression, metadata=None, **settings
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in larger:  # as if there were twice as many rows or columns
            file.pages[0].tags[tag].overwrite(32)
    with pytest.raises(DataError, match="damaged image"):
        image_reader.read_pixels(ImageRef(str(tmp_path / "a.tif")), video=VIDEO, max_pixels=10_000)


def test_too_many_pixels_are_refused_by_the_header(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 101, 4), "uint8"), photometric="rgb")
    monkeypatch.setattr(tiff, "_upright_pixels", lambda *_: pytest.fail("was decoded"))
    refused(tmp_path / "a.tif", "is 101x100, 10100 pixels, and the limit is 10099", max_pixels=10_099)


def test_channels_count_against_the_limit(tmp_path):
    pixels = values((10, 11, 9), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert read(tmp_path / "a.tif", max_pixels=330)[1].shape == (10, 11, 9)
    refused(tmp_path / "a.tif", "is 11x10 with 9 channels, 330 pixels, and the limit is 329", max_pixels=329)


def test_the_header_is_enough_without_transparency(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((10, 12, 3), "uint16"), photometric="rgb")
    monkeypatch.setattr(tiff, "_upright_pixels", lambda *_: pytest.fail("was decoded"))
    kind = image_reader.read_info(ImageRef(str(tmp_path / "a.tif")), video=VIDEO, max_pixels=10_000)
    assert kind == ImageInfo(height=10, width=12, channels=3, dtype="uint16", value_range=(0, 65535))
