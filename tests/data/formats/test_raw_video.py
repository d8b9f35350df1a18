"""Raw planar video against an independent computation, and its constants against published values."""

import io
import pathlib

import numpy as np
import pytest
import skimage.color
import tensorflow as tf
from PIL import Image

from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import ImageRef
from data.formats.raw_video import VideoFormat
from data.imaging import rgb_to_ycbcr, ycbcr_to_rgb

RNG = np.random.default_rng(0)

# Colour bars as test-signal generators hold them: 100 % of BT.709 as 10-bit numbers (the colours of SMPTE
# RP 219), 75 % of BT.601 as 8-bit numbers (described in Rec. ITU-R BT.801).
BARS_709 = {
    (1, 1, 1): (940, 512, 512),
    (1, 1, 0): (877, 64, 553),
    (0, 1, 1): (754, 615, 64),
    (0, 1, 0): (691, 167, 105),
    (1, 0, 1): (313, 857, 919),
    (1, 0, 0): (250, 409, 960),
    (0, 0, 1): (127, 960, 471),
    (0, 0, 0): (64, 512, 512),
}
BARS_601 = {
    (1, 1, 1): (180, 128, 128),
    (1, 1, 0): (162, 44, 142),
    (0, 1, 1): (131, 156, 44),
    (0, 1, 0): (112, 72, 58),
    (1, 0, 1): (84, 184, 198),
    (1, 0, 0): (65, 100, 212),
    (0, 0, 1): (35, 212, 114),
    (0, 0, 0): (16, 128, 128),
}


def test_bars_of_bt709():
    rgb = np.array(list(BARS_709), float) * 1023
    codes = rgb_to_ycbcr(rgb, matrix="bt709", bits=10)
    np.testing.assert_array_equal(np.round(codes), list(BARS_709.values()))


def test_bars_of_bt601():
    rgb = np.array(list(BARS_601), float) * 0.75 * 255
    np.testing.assert_array_equal(np.round(rgb_to_ycbcr(rgb)), list(BARS_601.values()))


@pytest.mark.parametrize(
    "settings, columns",
    [
        # Rows: what Y - 16 and Cb - 128 and Cr - 128 add to R, G, B, as printed in data sheets and textbooks.
        ({"matrix": "bt601"}, [[1.164, 1.164, 1.164], [0, -0.392, 2.017], [1.596, -0.813, 0]]),
        ({"matrix": "bt709"}, [[1.164, 1.164, 1.164], [0, -0.213, 2.112], [1.793, -0.533, 0]]),
        # Rec. ITU-T T.871 (JFIF).
        ({"full_range": True}, [[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]]),
    ],
)
def test_published_inverse_matrices(settings, columns):
    black = [0 if settings.get("full_range") else 16, 128, 128]
    found = ycbcr_to_rgb(np.eye(3) + black, **settings) - ycbcr_to_rgb(np.array(black, float), **settings)
    np.testing.assert_allclose(found, columns, atol=1e-6 if settings.get("full_range") else 1e-3)
    np.testing.assert_allclose(ycbcr_to_rgb(np.array(black, float), **settings), 0, atol=1e-10)


def test_against_scikit_image_and_pillow():
    rgb = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_allclose(rgb_to_ycbcr(rgb.astype(float)), skimage.color.rgb2ycbcr(rgb), atol=0.01)
    jpeg = np.asarray(Image.fromarray(rgb).convert("YCbCr"), float)
    np.testing.assert_allclose(rgb_to_ycbcr(rgb.astype(float), full_range=True), jpeg, atol=1.01)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_there_and_back_as_arrays_and_as_tensors(matrix, full_range, bits):
    settings = {"matrix": matrix, "full_range": full_range, "bits": bits}
    rgb = RNG.uniform(0, 2**bits - 1, (2, 5, 6, 3)).astype(np.float32)
    codes = rgb_to_ycbcr(rgb, **settings)
    assert codes.dtype == np.float32
    np.testing.assert_allclose(ycbcr_to_rgb(codes, **settings), rgb, atol=2e-3)
    tensor = tf.function(rgb_to_ycbcr)(tf.constant(rgb), **settings)
    assert tensor.dtype == tf.float32
    np.testing.assert_allclose(tensor, codes, rtol=1e-6)


def test_conversion_refuses_what_it_cannot_take():
    with pytest.raises(ValueError, match="'bt2020': must be one of bt601, bt709"):
        rgb_to_ycbcr(np.zeros((2, 3)), matrix="bt2020")
    for image in (np.zeros((2, 3), np.uint8), tf.zeros([2, 3], tf.uint8)):
        with pytest.raises(TypeError, match="floating-point values, not uint8"):
            ycbcr_to_rgb(image)


def planes_of(stored, width, height, step):
    """Y, Cb, Cr of one frame, by slices of the array of its samples."""
    chroma_width, chroma_height = (width + step - 1) // step, (height + step - 1) // step
    luma, rest = stored[: width * height], stored[width * height :]
    cb, cr = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    return luma.reshape(height, width), *(c.reshape(chroma_height, chroma_width) for c in (cb, cr))


def at_luma(plane, shape, step, left):
    """Chroma at every luma sample, point by point: the weighted mean of the (up to) four nearest samples."""
    result = np.empty(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            if step == 1:
                result[y, x] = plane[y, x]
                continue
            v, u = (y - 0.5) / 2, x / 2 if left else (x - 0.5) / 2  # position among the chroma samples
            total = 0
            for j in (np.floor(v), np.floor(v) + 1):
                for i in (np.floor(u), np.floor(u) + 1):
                    sample = plane[
                        int(np.clip(j, 0, plane.shape[0] - 1)), int(np.clip(i, 0, plane.shape[1] - 1))
                    ]
                    total += (1 - abs(v - j)) * (1 - abs(u - i)) * sample
            result[y, x] = total
    return result


def expected_rgb(planes, *, step, bits=8, bt709=False, full_range=False, left=True):
    """R'G'B' by the equations of the recommendations, solved for R', B' and then G'."""
    luma, cb, cr = planes
    kr, kb = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    scale = 2 ** (bits - 8)
    cb, cr = (at_luma(c.astype(float), luma.shape, step, left) - 128 * scale for c in (cb, cr))
    if full_range:
        y, cb, cr = (c / (2**bits - 1) for c in (luma.astype(float), cb, cr))
    else:
        y, cb, cr = (luma - 16.0 * scale) / (219 * scale), cb / (224 * scale), cr / (224 * scale)
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    rgb = np.stack([red, green, blue], axis=-1) * (2**bits - 1)
    return np.clip(np.floor(rgb + 0.5), 0, 2**bits - 1)


def noise_frames(width, height, pixel_format, frames):
    """Samples of frames [frames, samples], in [16, 235] or four times that."""
    step, bits = (2 if "420" in pixel_format else 1), (10 if pixel_format.endswith("10") else 8)
    samples = width * height + 2 * ((width + step - 1) // step) * ((height + step - 1) // step)
    top = 2 ** (bits - 8)
    found = RNG.integers(16 * top, 235 * top, (frames, samples))
    return found.astype(np.uint8 if bits == 8 else "<u2"), step, bits


def read(path, frame, video):
    ref = ImageRef(str(path), frame)
    kind = image_reader.read_info(ref, video=video, max_pixels=200_000)
    pixels = image_reader.read_pixels(ref, video=video, max_pixels=200_000)
    assert (kind.height, kind.width, kind.channels) == pixels.shape
    assert kind.dtype == pixels.dtype.name and not kind.alpha
    assert kind.value_range == ((0, 255) if kind.dtype == "uint8" else (0, 1023))
    return pixels


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10", "yuv444p10"])
@pytest.mark.parametrize(
    "settings", [{}, {"matrix": "bt709"}, {"full_range": True, "chroma_location": "center"}]
)
def test_frames_of_every_format(tmp_path, size, pixel_format, settings):
    frames, step, bits = noise_frames(*size, pixel_format, 3)
    (tmp_path / "a.yuv").write_bytes(frames.tobytes())
    video = {"size": size, "pixel_format": pixel_format} | settings
    assert image_reader.number_of_frames(str(tmp_path / "a.yuv"), VideoFormat(**video)) == 3
    for k, frame in enumerate(frames):
        planes = luma, cb, cr = planes_of(frame, *size, step)
        rgb = read(tmp_path / "a.yuv", k, VideoFormat(**video))
        expected = expected_rgb(
            planes,
            step=step,
            bits=bits,
            bt709=settings.get("matrix") == "bt709",
            full_range=settings.get("full_range", False),
            left="chroma_location" not in settings,
        )
        np.testing.assert_array_equal(rgb, expected)
        grey = read(tmp_path / "a.yuv", k, VideoFormat(**video, colours="y"))
        np.testing.assert_array_equal(grey[..., 0], luma)
        whole = read(tmp_path / "a.yuv", k, VideoFormat(**video, colours="ycbcr"))
        for c, plane in enumerate((cb, cr), 1):
            repeated = np.kron(plane, np.ones((step, step), int))[: size[1], : size[0]]
            np.testing.assert_array_equal(whole[..., c], repeated)
        np.testing.assert_array_equal(whole[..., 0], luma)


def write_y4m(path, header, frames, frame_header=b"FRAME\n"):
    headers = frame_header if isinstance(frame_header, list) else [frame_header] * len(frames)
    body = b"".join(h + frame.tobytes() for h, frame in zip(headers, frames, strict=True))
    path.write_bytes(b"YUV4MPEG2 " + header + b"\n" + body)


@pytest.mark.parametrize(
    "tags, pixel_format, left, full_range",
    [
        (b"W7 H5 F30:1 Ip A1:1", "yuv420p", False, False),
        (b"W7 H5 F30:1 C420jpeg XYSCSS=420JPEG", "yuv420p", False, False),
        (b"H5 W7 C420mpeg2 I? XCOLORRANGE=FULL", "yuv420p", True, True),
        (b"W7 H5 C444 XCOLORRANGE=LIMITED", "yuv444p", True, False),
        (b"W7 H5 C420p10 XYSCSS=420P10", "yuv420p10", True, False),
        (b"W7 H5 C444p10", "yuv444p10", True, False),
    ],
)
def test_y4m_says_what_it_is(tmp_path, tags, pixel_format, left, full_range):
    frames, step, bits = noise_frames(7, 5, pixel_format, 4)
    headers = [b"FRAME\n", b"FRAME Ip\n", b"FRAME\n", b"FRAME XNOTE=third\n"]
    write_y4m(tmp_path / "a.y4m", tags, frames, headers)
    # What the file says goes before what is asked for.
    video = VideoFormat(size=(640, 480), pixel_format="yuv444p", full_range="LIMITED" in tags.decode())
    assert image_reader.number_of_frames(str(tmp_path / "a.y4m"), video) == 4
    for k, frame in enumerate(frames):
        expected = expected_rgb(
            planes_of(frame, 7, 5, step), step=step, bits=bits, left=left, full_range=full_range
        )
        np.testing.assert_array_equal(read(tmp_path / "a.y4m", k, video), expected)


def test_a_y4m_that_changes_is_read_anew(tmp_path):
    frames, _, _ = noise_frames(4, 4, "yuv420p", 2)
    for count in (2, 1):
        write_y4m(tmp_path / "a.y4m", b"W4 H4", frames[:count])
        assert image_reader.number_of_frames(str(tmp_path / "a.y4m"), VideoFormat()) == count


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n", "does not begin like a YUV4MPEG2 file"),
        (b"YUV4MPEG2 W4 H4 C422\nFRAME\n", "pixel format 422 is not supported; convert it to one of 420, "),
        (b"YUV4MPEG2 W4 H4 It\nFRAME\n", "is interlaced"),
        (b"YUV4MPEG2 H4\nFRAME\n", "no width or height"),
        (b"YUV4MPEG2 W4 H4\n", "holds no frames"),
        (b"YUV4MPEG2 W4 H4\nFRAME\n" + bytes(23), "frame 0 is truncated"),
        (b"YUV4MPEG2 W4 H4\nFRAME\n" + bytes(24) + b"FRANE\n" + bytes(24), "frame 1 is truncated or begins"),
        (b"YUV4MPEG2 W0 H4\nFRAME\n", "has no pixels .0x4"),
        (b"YUV4MPEG2 W100 H101 C444\nFRAME\n" + bytes(30300), "10100 pixels, and the limit is 10099"),
    ],
)
def test_damaged_y4m(tmp_path, content, match):
    (tmp_path / "a.y4m").write_bytes(content)
    for call in (image_reader.read_info, image_reader.read_pixels):
        with pytest.raises(DataError, match=match) as raised:
            call(ImageRef(str(tmp_path / "a.y4m")), video=VideoFormat(), max_pixels=10_099)
        assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({}, "does not state its frame size; give width and height.*--video_size=352x288"),
        ({"size": (4, 5)}, "50 bytes are not a whole number of 4x5 yuv420p frames of 32 bytes"),
        (
            {"size": (5, 5), "pixel_format": "yuv420p10"},
            "not a whole number of 5x5 yuv420p10 frames of 86 bytes",
        ),
        ({"size": (5, 1), "pixel_format": "yuv444p10"}, "not a whole number"),
    ],
)
def test_yuv_of_another_size(tmp_path, settings, match):
    (tmp_path / "a.yuv").write_bytes(bytes(50))
    for call in (
        lambda video: image_reader.number_of_frames(str(tmp_path / "a.yuv"), video),
        lambda video: read(tmp_path / "a.yuv", 0, video),
    ):
        with pytest.raises(DataError, match=match):
            call(VideoFormat(**settings))


def test_frames_and_values_that_are_not_there(tmp_path):
    video = VideoFormat(size=(4, 4), pixel_format="yuv444p10")
    samples = np.full(48, 1023, "<u2")
    (tmp_path / "a.yuv").write_bytes(samples.tobytes())
    assert read(tmp_path / "a.yuv", 0, video).shape == (4, 4, 3)
    with pytest.raises(DataError, match="has 1 frames and no frame 1"):
        read(tmp_path / "a.yuv", 1, video)
    samples[7] = 1024
    (tmp_path / "a.yuv").write_bytes(samples.tobytes())
    with pytest.raises(DataError, match="holds the value 1024, too large for 10 bits"):
        read(tmp_path / "a.yuv", 0, video)
    with pytest.raises(DataError, match="is not a file"):
        (tmp_path / "b.yuv").mkdir()
        image_reader.number_of_frames(str(tmp_path / "b.yuv"), video)
    with pytest.raises(DataError, match="does not exist"):
        image_reader.number_of_frames(str(tmp_path / "c.y4m"), video)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"pixel_format": "nv12"}, "pixel_format 'nv12': not known; choose one of yuv420p, "),
        ({"colours": "bgr"}, "colours 'bgr'"),
        ({"matrix": "bt2020"}, "matrix 'bt2020'"),
        ({"chroma_location": "top"}, "chroma_location 'top'"),
        ({"size": (0, 4)}, r"size \(0, 4\)"),
        ({"size": (4,)}, r"size \(4,\)"),
    ],
)
def test_refused_settings(settings, match):
    with pytest.raises(DataError, match=match):
        VideoFormat(**settings)


@pytest.mark.parametrize(
    "name, size, pixel_format, frames",
    [
        ("hall_cif_frm_0_frm_0.yuv", (352, 288), "yuv420p", 1),
        ("hall_plr10_3693_frm_0_frm_0.yuv", (352, 288), "yuv420p", 1),
        ("100007.yuv", (481, 321), "yuv444p", 1),
        ("100007_noisy.yuv", (481, 321), "yuv444p", 1),
        ("ref_test_0_1_*.yuv", (160, 90), "yuv420p", 48),
        ("dis_test_0_1_*.yuv", (160, 90), "yuv420p", 48),
    ],
)
def test_real_videos(real_images, name, size, pixel_format, frames):
    (path,) = pathlib.Path(real_images, "yuv").glob(name)
    video = VideoFormat(size=size, pixel_format=pixel_format)
    assert image_reader.number_of_frames(str(path), video) == frames
    stored, step = np.fromfile(path, np.uint8).reshape(frames, -1), 2 if "420" in pixel_format else 1
    for k in {0, frames // 2, frames - 1}:
        rgb = read(path, k, video)
        assert rgb.std() > 10
        # The middle of the picture only: the reference goes point by point.
        luma, *chroma = planes_of(stored[k], *size, step)
        box = np.s_[32:64, 64:96]
        chroma = [c[16 - 1 : 32 + 1, 32 - 1 : 48 + 1] if step == 2 else c[box] for c in chroma]
        margin = 2 if step == 2 else 0
        outer = luma[32 - margin : 64 + margin, 64 - margin : 96 + margin]
        expected = expected_rgb((outer, *chroma), step=step)
        np.testing.assert_array_equal(rgb[box], expected[margin : 32 + margin, margin : 32 + margin])


def test_real_frames_look_as_a_jpeg_decoder_shows_them(real_images):
    """libjpeg interpolates chroma as "center" does; a frame becomes a JPEG of high quality and comes back."""
    path = pathlib.Path(real_images, "yuv", "hall_cif_frm_0_frm_0.yuv")
    video = VideoFormat(size=(352, 288), full_range=True, chroma_location="center")
    rgb = read(path, 0, video)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=98, subsampling="4:2:0")
    shown = np.asarray(Image.open(file), float)
    assert np.abs(shown - rgb).mean() < 2
