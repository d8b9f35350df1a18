"""Raw video as a stream: what was read and written again is the same file, and what is damaged ends it."""

import os
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import ImageRef
from data.formats.planar_frames import PIXEL_FORMATS, PlanarFrames
from data.formats.raw_video import VideoFormat
from data.formats.y4m_header import Y4mHeader
from data.video.clip import Clip, Frame
from data.video.files import is_video_name, open_reader, open_writer

RNG = np.random.default_rng(0)


def frames_of(width, height, pixel_format, count):
    """The bytes of frames of noise, each in the studio range."""
    frames = PlanarFrames(width=width, height=height, pixel_format=pixel_format)
    scale = 2 ** (frames.bits - 8)
    shape = count, frames.frame_bytes // frames.dtype.itemsize
    samples = RNG.integers(16 * scale, 235 * scale, shape)
    return [frame.astype(frames.dtype.newbyteorder("<")).tobytes() for frame in samples]


def write_y4m(path, header, frames, frame_headers=None):
    headers = frame_headers or [b"FRAME\n"] * len(frames)
    body = b"".join(head + frame for head, frame in zip(headers, frames, strict=True))
    path.write_bytes(b"YUV4MPEG2 " + header + b"\n" + body)


def copy(source, target, *, video=None, enlarged=1, **more):
    """Reads a clip and writes its frames, each pixel repeated `enlarged` times along both axes."""
    reader = open_reader(str(source), video or VideoFormat())
    clip = reader.clip
    frames = PlanarFrames(
        width=clip.frames.width * enlarged,
        height=clip.frames.height * enlarged,
        **{
            name: getattr(clip.frames, name)
            for name in "pixel_format full_range chroma_location matrix colours".split()
        },
    )
    with open_writer(str(target), clip, frames, **more) as writer:
        for frame in reader:
            pixels = frame.pixels.astype(np.float32).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
            if frame.chroma is not None:
                frame = frame._replace(chroma=frame.chroma.repeat(enlarged, axis=1).repeat(enlarged, axis=2))
            writer.write(pixels, frame)
    return clip


TAGS = {
    b"W9 H6 F30000:1001 Ip A1:1 C420jpeg XYSCSS=420JPEG XCOLORRANGE=FULL": "yuv420p",
    b"C420mpeg2 H6 W9": "yuv420p",
    b"W9 H6 F24:1 I? A128:117 C444 Xby\xff\xfeyou XCOLORRANGE=LIMITED": "yuv444p",
    b"W9 H6 F50:1 Ip A0:0 C420p10 XYSCSS=420P10": "yuv420p10",
    b"W9 H6 F25:1 Ip C444p10": "yuv444p10",
}


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("colours", ["ycbcr", "y"])
def test_a_y4m_of_planes_comes_back_bit_for_bit(tmp_path, tags, colours):
    headers = [b"FRAME\n", b"FRAME Ip\n", b"FRAME\n", b"FRAME XNOTE=\xe9third\n"]
    write_y4m(tmp_path / "a.y4m", tags, frames_of(9, 6, TAGS[tags], 4), headers)
    clip = copy(tmp_path / "a.y4m", tmp_path / "b.y4m", video=VideoFormat(colours=colours))
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "a.y4m").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.y4m", "b.y4m"]
    assert clip.total == 4


@pytest.mark.parametrize("tags", TAGS)
def test_a_y4m_through_rgb_keeps_its_format(tmp_path, tags):
    pixel_format = TAGS[tags]
    write_y4m(tmp_path / "a.y4m", tags, frames_of(9, 6, pixel_format, 2))
    copy(tmp_path / "a.y4m", tmp_path / "b.y4m")
    written = (tmp_path / "b.y4m").read_bytes()
    assert written.split(b"\n")[0] == b"YUV4MPEG2 " + tags
    assert len(written) == (tmp_path / "a.y4m").stat().st_size
    bits = PIXEL_FORMATS[pixel_format][1]
    reader = open_reader(str(tmp_path / "b.y4m"), VideoFormat())
    for number, frame in enumerate(reader):
        assert frame.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
        pixels = image_reader.read_pixels(
            ImageRef(str(tmp_path / "b.y4m"), number), video=VideoFormat(), max_pixels=100
        )
        np.testing.assert_array_equal(frame.pixels, pixels)
    assert number == 1 and bits in (8, 10)


def test_larger_frames_change_only_the_size_of_the_header(tmp_path):
    [contents] = frames_of(4, 2, "yuv444p", 1)
    write_y4m(tmp_path / "a.y4m", b"F25:1 H2 W4 C444 XWH", [contents])
    copy(tmp_path / "a.y4m", tmp_path / "b.y4m", video=VideoFormat(colours="ycbcr"), enlarged=2)
    header, frame, larger = (tmp_path / "b.y4m").read_bytes().split(b"\n", 2)
    assert (header, frame) == (b"YUV4MPEG2 F25:1 H4 W8 C444 XWH", b"FRAME")
    planes = np.frombuffer(contents, np.uint8).reshape(3, 2, 4)
    np.testing.assert_array_equal(
        np.frombuffer(larger, np.uint8).reshape(3, 4, 8), np.kron(planes, np.ones((1, 2, 2), np.uint8))
    )


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_yuv_becomes_the_same_yuv_or_a_y4m(tmp_path, pixel_format):
    frames = frames_of(5, 4, pixel_format, 3)
    (tmp_path / "a.yuv").write_bytes(b"".join(frames))
    video = VideoFormat(size=(5, 4), pixel_format=pixel_format, colours="ycbcr", full_range=True)
    assert copy(tmp_path / "a.yuv", tmp_path / "b.YUV", video=video).total == 3
    assert (tmp_path / "b.YUV").read_bytes() == (tmp_path / "a.yuv").read_bytes()
    copy(tmp_path / "a.yuv", tmp_path / "c.y4m", video=video, rate=Fraction(24000, 1001))
    header, body = (tmp_path / "c.y4m").read_bytes().split(b"\n", 1)
    colour_space = {"yuv420p": "420mpeg2", "yuv444p": "444", "yuv420p10": "420p10", "yuv444p10": "444p10"}
    expected = f"YUV4MPEG2 W5 H4 F24000:1001 Ip A0:0 C{colour_space[pixel_format]} XCOLORRANGE=FULL"
    assert header.decode() == expected
    assert body == b"".join(b"FRAME\n" + frame for frame in frames)


def test_a_header_for_chroma_in_the_centre():
    frames = PlanarFrames(width=4, height=2, chroma_location="center")
    header = Y4mHeader.of(frames, rate=Fraction(25), aspect=Fraction(4, 3))
    assert header.to_bytes() == b"YUV4MPEG2 W4 H2 F25:1 Ip A4:3 C420jpeg XCOLORRANGE=LIMITED\n"
    assert (header.rate, header.aspect) == (25, Fraction(4, 3))
    assert header.frames(full_range=True, matrix="bt601", colours="rgb") == frames
    unknown = Y4mHeader(("W4", "H2", "F0:0", "Ax"))
    assert unknown.rate is None and unknown.aspect is None


@pytest.mark.parametrize(
    "ending, number",
    [(b"FRAME\n" + bytes(23), 2), (b"FRANE\n" + bytes(24), 2), (b"FRAME", 2), (b"\n", 2)],
)
def test_frames_before_a_damaged_one_are_read(tmp_path, ending, number):
    frames = frames_of(4, 4, "yuv420p", 2)
    write_y4m(tmp_path / "a.y4m", b"W4 H4", frames)
    with open(tmp_path / "a.y4m", "ab") as file:
        file.write(ending)
    read = []
    with pytest.raises(DataError, match=f"a.y4m: damaged video .frame {number} is truncated or begins wrong"):
        for frame in open_reader(str(tmp_path / "a.y4m"), VideoFormat(colours="y")):
            read.append(frame)
    luma = [np.frombuffer(frame, np.uint8)[:16].reshape(4, 4, 1) for frame in frames]
    np.testing.assert_array_equal([frame.pixels for frame in read], luma)


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("a.y4m", b"", "is empty"),
        ("a.y4m", b"\x89PNG\r\n\x1a\n", "does not begin like"),
        ("a.y4m", b"YUV4MPEG2 W4 H4 It\nFRAME\n", "is interlaced; deinterlace it first"),
        ("a.y4m", b"YUV4MPEG2 W4 H4\n", "holds no frames"),
        ("a.y4m", b"YUV4MPEG2 W0 H4\nFRAME\n", "has no pixels"),
        ("a.y4m", b"YUV4MPEG2 W99999 H99999 C444\n", "the limit is"),
        ("a.yuv", b"12", "does not state its frame size"),
        ("b.yuv", None, "cannot be read .No such file"),
    ],
)
def test_refused_files(tmp_path, name, content, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match) as raised:
        list(open_reader(str(tmp_path / name), VideoFormat()))
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="29 bytes are not a whole number of 4x4 yuv420p frames"):
        (tmp_path / "c.yuv").write_bytes(bytes(29))
        open_reader(str(tmp_path / "c.yuv"), VideoFormat(size=(4, 4)))


@pytest.mark.parametrize("name", ["b.y4m", "b.yuv"])
def test_an_interruption_leaves_nothing_and_keeps_what_was_there(tmp_path, name):
    clip = Clip(path="", frames=PlanarFrames(width=4, height=4))
    for there in (False, True):
        if there:
            (tmp_path / name).write_bytes(b"old")
        with (
            pytest.raises(KeyboardInterrupt),
            open_writer(str(tmp_path / name), clip, clip.frames) as writer,
        ):
            writer.write(np.zeros((4, 4, 3)), Frame(pixels=np.zeros((4, 4, 3))))
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == ([name] if there else [])
    assert (tmp_path / name).read_bytes() == b"old"
    with pytest.raises(KeyboardInterrupt), open_writer(str(tmp_path / "new" / name), clip, clip.frames):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == [name]  # nor the folder


def test_clips_in_a_store(tmp_path):
    frames = frames_of(4, 4, "yuv444p", 2)
    write_y4m(tmp_path / "a.y4m", b"W4 H4 C444", frames)
    url = f"ram://{tmp_path.name}/clips"
    copy(tmp_path / "a.y4m", f"{url}/a.y4m", video=VideoFormat(colours="ycbcr"))
    assert tf.io.gfile.listdir(url) == ["a.y4m"]
    copy(f"{url}/a.y4m", tmp_path / "b.y4m", video=VideoFormat(colours="ycbcr"))
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "a.y4m").read_bytes()


def test_names_of_videos():
    names = ["a.y4m", "a.YUV", "a.mp4", "b/a.MKV", "a.png", "frames", "y4m"]
    assert [is_video_name(name) for name in names] == [True, True, True, True, False, False, False]


def test_memory_does_not_grow_with_the_clip(tmp_path):
    """Frames are 115 kB; 40 more of them in memory would be 4.6 MB."""
    [contents] = frames_of(320, 240, "yuv420p", 1)
    peaks = []
    for count in (5, 5, 45):  # the first warms caches
        write_y4m(tmp_path / "a.y4m", b"W320 H240", [contents] * count)
        tracemalloc.start()
        copy(tmp_path / "a.y4m", tmp_path / "b.y4m")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 100_000
