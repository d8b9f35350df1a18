"""Picture files of every kind that is read, against Pillow or against the pixels they were made of."""

import concurrent.futures
import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFile, ImageOps

from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import ImageInfo, ImageRef
from data.formats.raw_video import VideoFormat

RNG = np.random.default_rng(0)
VIDEO = VideoFormat()


def read(path, max_pixels=100_000):
    """(kind of the header, pixels), having checked that they agree."""
    ref = ImageRef(str(path))
    kind = image_reader.read_info(ref, video=VIDEO, max_pixels=max_pixels)
    pixels = image_reader.read_pixels(ref, video=VIDEO, max_pixels=max_pixels)
    assert (kind.height, kind.width, kind.channels) == pixels.shape
    assert kind.dtype == pixels.dtype.name and kind.alpha == (kind.channels in (2, 4))
    assert kind.value_range == (0, np.iinfo(pixels.dtype).max)
    return kind, pixels


def refused(path, match, max_pixels=100_000):
    """Asserts that a file is refused in one line that names it."""
    with pytest.raises(DataError, match=match) as raised:
        image_reader.read_pixels(ImageRef(str(path)), video=VIDEO, max_pixels=max_pixels)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def noise(height, width, channels=3, dtype="uint8"):
    return RNG.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def smooth(height, width):
    """A picture that survives JPEG: an image of Pillow."""
    coarse = Image.fromarray(noise(height // 4 + 1, width // 4 + 1))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(path, samples, bits, colour_type, *, before=(), after=()):
    """A PNG made by hand: samples [H, W, C] of `bits` bits; chunks (kind, body) around the pixels."""
    height, width = samples.shape[:2]
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        digits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = np.packbits(digits.reshape(height, -1), axis=-1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(lines.tobytes())), *after, (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [None, 0, 1])
def test_grey_png_of_any_depth(tmp_path, bits, clear):
    samples = RNG.integers(0, 2**bits, (6, 16, 1))
    samples[0, :2, 0] = 0, 1
    before = [] if clear is None else [(b"tRNS", struct.pack(">H", clear))]
    write_png(tmp_path / "a.png", samples, bits, 0, before=before)
    kind, pixels = read(tmp_path / "a.png")
    peak = 65535 if bits == 16 else 255
    np.testing.assert_array_equal(pixels[..., :1], samples * peak // (2**bits - 1))
    assert kind.dtype == ("uint16" if bits == 16 else "uint8")
    assert kind.channels == (1 if clear is None else 2)
    if clear is not None:
        np.testing.assert_array_equal(pixels[..., 1:], np.where(samples == clear, 0, peak))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_colour_png_with_a_transparent_colour(tmp_path, bits, clear):
    samples = RNG.integers(0, 2**bits, (6, 7, 3))
    samples[:, :, 1] = 2  # a part of the key everywhere
    samples[2, 3], samples[4, 4] = (1, 2, 3), (1, 2, 4)
    key = (1, 2, 3) if clear else (0, 0, 0)
    write_png(tmp_path / "a.png", samples, bits, 2, before=[(b"tRNS", struct.pack(">3H", *key))])
    pixels = read(tmp_path / "a.png")[1]
    np.testing.assert_array_equal(pixels[..., :3], samples)
    assert pixels.shape[-1] == (4 if clear else 3)
    if clear:
        peak = 2**bits - 1
        np.testing.assert_array_equal(np.argwhere(pixels[..., 3] != peak), [[2, 3]])
        assert pixels[2, 3, 3] == 0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels, colour_type", [(2, 4), (4, 6)])
def test_png_with_alpha(tmp_path, bits, channels, colour_type):
    samples = RNG.integers(0, 2**bits, (6, 7, channels))
    write_png(tmp_path / "a.png", samples, bits, colour_type)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1], samples)
    samples[..., -1] = 2**bits - 1
    write_png(tmp_path / "a.png", samples, bits, colour_type)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1], samples[..., :-1])
    samples[-1, -1, -1] -= 1  # of one pixel, one level
    write_png(tmp_path / "a.png", samples, bits, colour_type)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1], samples)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [False, True])
def test_palette(tmp_path, bits, clear):
    colours, indices = noise(1, 2**bits)[0], RNG.integers(0, 2**bits, (8, 16, 1))
    alphas = np.full(2**bits, 255, np.uint8)
    alphas[1] = 7 if clear else 255
    before = [(b"PLTE", colours.tobytes()), (b"tRNS", alphas.tobytes())]
    write_png(tmp_path / "a.png", indices, bits, 3, before=before)
    expected = colours[indices[..., 0]]
    if clear:
        expected = np.concatenate([expected, alphas[indices]], axis=-1)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1], expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_png_of_another_encoder(tmp_path, channels):
    pixels = noise(9, 8, channels, "uint16")
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(pixels).numpy())
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1], pixels)


@pytest.mark.parametrize(
    "name, mode, options",
    [
        ("a.jpg", "RGB", {}),
        ("a.jpg", "L", {}),
        ("a.jpg", "CMYK", {}),
        ("a.jpg", "YCbCr", {"progressive": True}),
        ("a.png", "1", {}),
        ("a.png", "P", {}),
        ("a.bmp", "RGB", {}),
        ("a.bmp", "L", {}),
        ("a.bmp", "1", {}),
        ("a.bmp", "P", {}),
        ("a.gif", "P", {}),
        ("a.gif", "L", {}),
        ("a.webp", "RGB", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.mpo", "RGB", {}),
        ("wrong_name.png", "RGB", {"format": "JPEG"}),
    ],
)
def test_what_a_viewer_shows(tmp_path, name, mode, options):
    image = smooth(33, 46)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(noise(33, 46, 1)[..., 0]))
    image.convert(mode).save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as shown:
        grey = shown.mode in ("1", "L")
        shown = np.asarray(shown.convert("RGBA" if mode == "RGBA" else "L" if grey else "RGB"))
    np.testing.assert_array_equal(read(tmp_path / name)[1].squeeze(), shown)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.fromarray(np.full((5, 6, 3), level, np.uint8)) for level in (10, 100, 200)]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read(tmp_path / name)[1], np.full((5, 6, 3), 10))


def test_transparent_gif(tmp_path):
    image = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) % 4).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.gif", transparency=2)
    pixels = read(tmp_path / "a.gif")[1]
    np.testing.assert_array_equal(pixels[..., 3] == 0, np.arange(20).reshape(4, 5) % 4 == 2)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_orientation(tmp_path, name, orientation):
    smooth(21, 34).save(tmp_path / name, exif=oriented(orientation))
    with Image.open(tmp_path / name) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert shown.shape[:2] == ((34, 21) if orientation > 4 else (21, 34))
    np.testing.assert_array_equal(read(tmp_path / name)[1], shown)


@pytest.mark.parametrize("bits, colour_type", [(8, 2), (16, 2), (16, 6)])
@pytest.mark.parametrize("place", ["before", "after"])
def test_orientation_anywhere_in_a_png(tmp_path, place, bits, colour_type):
    samples = RNG.integers(0, 2**bits, (4, 7, 4 if colour_type == 6 else 3))
    exif = oriented(6).tobytes().removeprefix(b"Exif\0\0")
    write_png(tmp_path / "a.png", samples, bits, colour_type, **{place: [(b"eXIf", exif)]})
    np.testing.assert_array_equal(read(tmp_path / "a.png")[1], np.rot90(samples, -1))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "a.bmp", "a.gif", "a.webp"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated(tmp_path, name, kept):
    path = tmp_path / name
    if name == "deep.png":
        path.write_bytes(tf.io.encode_png(noise(40, 60, 3, "uint16")).numpy())
    else:
        Image.fromarray(noise(40, 60)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    refused(path, "damaged image|not an image in a supported format")


@pytest.mark.parametrize("bits", [8, 16])
def test_pixels_that_end_early_in_a_png_without_damage(tmp_path, bits):
    write_png(tmp_path / "a.png", noise(8, 9, 3, f"uint{bits}"), bits, 2)
    stored = (tmp_path / "a.png").read_bytes()
    higher = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 800, bits, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(stored[:8] + higher + stored[8 + len(higher) :])
    refused(tmp_path / "a.png", r"damaged image .Invalid PNG data, size \d+.; remove or replace it")


def test_no_damage_to_the_pixels_of_a_png_goes_unseen(tmp_path):
    path = tmp_path / "a.png"
    smooth(40, 48).save(path)
    whole = path.read_bytes()
    start = whole.index(b"IDAT") + 4
    end = start + struct.unpack(">I", whole[start - 8 : start - 4])[0] + 4  # with the checksum
    for place in [*range(start, end - 400, 97), *range(end - 400, end)]:
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        refused(path, "damaged image")


@pytest.mark.parametrize(
    "name, match",
    [
        ("folder.png", "is not a file"),
        ("pipe.png", "is not a file"),
        ("nowhere.png", "does not exist, or is a broken link"),
        ("link_to_nothing.png", "does not exist, or is a broken link"),
        ("empty.png", "is empty"),
        ("text.jpg", "not an image"),
        ("a.ppm", "PPM images are not supported; convert it to PNG or TIFF"),
        ("a" * 300 + ".png", "cannot be read .File name too long.; check it"),
    ],
)
def test_what_is_no_picture(tmp_path, name, match):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link_to_nothing.png").symlink_to("gone")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    smooth(4, 4).save(tmp_path / "a.ppm")
    refused(tmp_path / name, match)
    with pytest.raises(DataError, match=match):
        image_reader.read_info(ImageRef(str(tmp_path / name)), video=VIDEO, max_pixels=100)


def test_permission_denied(tmp_path, monkeypatch):
    smooth(8, 8).save(tmp_path / "a.png")

    def denied(*args, **kwargs):
        # Tests may run as root, who may read everything: refuse in the place of the system.
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    refused(tmp_path / "a.png", "permission denied; make it readable")


@pytest.mark.parametrize("name", ["with space.png", "-dash.png", "ünïcode 図.png", "link.png", "UPPER.PNG"])
def test_names(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = smooth(8, 9)
    if name == "link.png":
        image.save("target.png")
        os.symlink("target.png", name)
    else:
        image.save(name)
    np.testing.assert_array_equal(read(name)[1], image)


def test_too_many_pixels_are_refused_by_the_header(tmp_path, monkeypatch):
    for name in ("a.png", "a.jpg", "a.bmp", "a.gif", "a.webp"):
        Image.new("RGBA" if name == "a.png" else "RGB", (100, 101)).save(tmp_path / name)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    for path in tmp_path.iterdir():
        refused(path, "is 100x101, 10100 pixels, and the limit is 10099", max_pixels=10_099)
        with pytest.raises(DataError, match="limit is 10099"):
            image_reader.read_info(ImageRef(str(path)), video=VIDEO, max_pixels=10_099)


def test_a_file_that_is_refused_by_its_header_is_not_read(tmp_path):
    Image.new("RGB", (100, 101)).save(tmp_path / "a.bmp")
    os.truncate(tmp_path / "a.bmp", 2**28)
    tracemalloc.start()
    refused(tmp_path / "a.bmp", "the limit is 10099", max_pixels=10_099)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**24


def test_the_limit_is_ours_not_pillows(tmp_path, recwarn):
    # One row more than twice Pillow's own limit, at which it would raise; a bit a pixel.
    side = 18_950
    write_png(tmp_path / "a.png", np.zeros((1, 8, 1)), 1, 0)
    stored = bytearray((tmp_path / "a.png").read_bytes())
    stored[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(stored)
    ref = ImageRef(str(tmp_path / "a.png"))
    assert image_reader.read_info(ref, video=VIDEO, max_pixels=side**2).height == side
    assert side**2 > 2 * image_reader.MAX_PIXELS
    refused(ref.path, "raise max_pixels", max_pixels=image_reader.MAX_PIXELS)
    assert not recwarn.list


def test_the_header_is_enough_without_transparency(tmp_path, monkeypatch):
    paths = {name: tmp_path / name for name in ("a.png", "a.jpg", "a.bmp", "a.webp", "deep.png")}
    for name, path in paths.items():
        smooth(7, 12).save(path, **({} if name == "a.bmp" else {"exif": oriented(5)}))
    write_png(paths["deep.png"], noise(7, 12, 3, "uint16"), 16, 2)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    monkeypatch.setattr(tf.io, "decode_png", lambda *_, **__: pytest.fail("was decoded"))
    for name, path in paths.items():
        kind = image_reader.read_info(ImageRef(str(path)), video=VIDEO, max_pixels=100)
        if name == "deep.png":
            assert kind == ImageInfo(height=7, width=12, channels=3, dtype="uint16", value_range=(0, 65535))
        else:
            assert kind == ImageInfo(height=7 if name == "a.bmp" else 12, width=19 - kind.height, channels=3)


def test_a_still_has_one_frame(tmp_path):
    smooth(8, 8).save(tmp_path / "a.png")
    assert image_reader.number_of_frames(str(tmp_path / "a.png"), VIDEO) == 1
    with pytest.raises(DataError, match="holds one image and has no frame 1"):
        image_reader.read_pixels(ImageRef(str(tmp_path / "a.png"), 1), video=VIDEO, max_pixels=100)


@pytest.mark.parametrize(
    "extension", "jpg JPEG png bmp gif webp tif TIFF yuv Y4M ppm heic dng mp4 jp2".split()
)
def test_names_of_images(extension):
    assert image_reader.is_image_name(f"some.where/a b.{extension}")


@pytest.mark.parametrize("name", ["notes.txt", "png", ".png", "a.png.txt", "labels.csv", "a.npy"])
def test_names_of_no_images(name):
    assert not image_reader.is_image_name(name)


def test_threads(tmp_path):
    images = {}
    for k in range(40):
        image, path = smooth(20 + k, 30), tmp_path / f"{k}.{('png', 'jpg', 'tif', 'webp')[k % 4]}"
        image.save(path, **({"lossless": True} if k % 4 == 3 else {"quality": 95} if k % 4 == 1 else {}))
        with Image.open(io.BytesIO(path.read_bytes())) as shown:
            images[str(path)] = np.asarray(shown.convert("RGB"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda path: read(path)[1], images))
    for pixels, shown in zip(decoded, images.values(), strict=True):
        np.testing.assert_array_equal(pixels, shown)
