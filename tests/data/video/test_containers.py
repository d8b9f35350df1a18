"""Video in containers: frames, times and sound come back as PyAV itself reads them."""

import dataclasses
import importlib
import os
from fractions import Fraction

import numpy as np
import pytest

from data.errors import DataError
from data.formats.planar_frames import PlanarFrames
from data.formats.raw_video import VideoFormat
from data.video.clip import Clip, Frame
from data.video.container_writer import Encoding
from data.video.files import open_reader, open_writer

SIZE = WIDTH, HEIGHT = 32, 16


@pytest.fixture(scope="module")
def av():
    return pytest.importorskip("av", reason="PyAV, the extra 'video', is not installed")


def picture(number, peak=255):
    """A smooth picture with a bar that moves: float [H, W, 3]."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([rows / HEIGHT, columns / WIDTH, 0 * rows + number / 16], axis=-1) * 0.6 + 0.2
    rgb[:, 2 * number : 2 * number + 4] = 0.5
    return rgb * peak


def write(av, path, frames, *, times=None, sound=False, rotation=0, codec="libx264", **tags):
    """Writes frames with PyAV alone: [H, W, 3] of "rgb24", converted by FFmpeg to yuv420p."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=Fraction(30000, 1001), options={"crf": "1"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track.codec_context.time_base = Fraction(1, 90_000)
        if rotation:
            track.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=8000) if sound else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.round(pixels).astype(np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            for tag, value in tags.items():
                setattr(frame, tag, value)
                setattr(track.codec_context, tag, value)
            frame.time_base = Fraction(1, 90_000)
            frame.pts = 3003 * number if times is None else round(times[number] * 90_000)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(8000) * 0.3).astype(np.float32)[np.newaxis]
            samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))


def read(av, path):
    """What PyAV says: (RGB frames, times, bytes of the sound packets, pixel format, stream rate)."""
    with av.open(str(path)) as container:
        [track] = container.streams.video
        frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(track)]
        about = track.codec_context.pix_fmt, track.average_rate, track.sample_aspect_ratio
    with av.open(str(path)) as container:
        sound = [
            (bytes(packet), packet.pts * packet.time_base)
            for packet in container.demux(container.streams.audio)
            if container.streams.audio and packet.dts is not None
        ]
    return [pixels for pixels, _ in frames], [time for _, time in frames], sound, about


def copy(source, target, **more):
    reader = open_reader(str(source), VideoFormat())
    with open_writer(str(target), reader.clip, reader.clip.frames, **more) as writer:
        for frame in reader:
            writer.write(frame.pixels.astype(np.float32), frame)
    return reader.clip


def assert_similar(found, expected, levels=6):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        # The mean: two decoders differ where FFmpeg repeats chroma and we interpolate it.
        assert np.abs(one.astype(float) - other).mean() < levels


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.mov"])
def test_frames_times_rate_and_sound_are_kept(av, tmp_path, name):
    pictures = [picture(number) for number in range(12)]
    write(av, tmp_path / "a.mp4", pictures, sound=True)
    clip = copy(tmp_path / "a.mp4", tmp_path / name)
    assert (clip.total, clip.rate, clip.has_audio) == (12, Fraction(30000, 1001), True)
    frames, times, sound, (pixel_format, rate, _) = read(av, tmp_path / name)
    before = read(av, tmp_path / "a.mp4")
    assert_similar(frames, pictures)
    assert_similar(before[0], pictures)
    # AAC begins before 0, which .mkv cannot say: there all times are later by that. It counts milliseconds.
    shift = float(sound[0][1] - before[2][0][1])
    assert name == "b.mkv" or shift == 0
    np.testing.assert_allclose(times, np.array(before[1]) + shift, atol=0.0011)
    assert pixel_format == "yuv420p" and (rate == Fraction(30000, 1001) or name == "b.mkv")
    assert [data for data, _ in sound] == [data for data, _ in before[2]] and len(sound) > 5
    np.testing.assert_allclose(
        [float(time) for _, time in sound], [float(time) + shift for _, time in before[2]], atol=0.0011
    )
    assert os.path.exists(tmp_path / name) and len(os.listdir(tmp_path)) == 2


def test_frames_keep_times_of_a_variable_rate(av, tmp_path):
    times = [0.0, 0.04, 0.08, 0.5, 0.51, 2.0]
    write(av, tmp_path / "a.mp4", [picture(number) for number in range(6)], times=times)
    copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    np.testing.assert_allclose(read(av, tmp_path / "b.mp4")[1], times, atol=1e-4)


def test_a_rotated_video_is_read_upright(av, tmp_path):
    write(av, tmp_path / "a.mp4", [picture(0), picture(3)], rotation=90)  # a quarter turn to the left
    copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    upright = [np.rot90(picture(0)), np.rot90(picture(3))]
    assert_similar(read(av, tmp_path / "b.mp4")[0], upright)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


@pytest.mark.parametrize("pixel_format, white", [("yuv420p10", 1023), ("yuv444p10", 1023), ("yuv444p", 255)])
def test_bits_and_chroma_are_kept(av, tmp_path, pixel_format, white):
    frames = PlanarFrames(width=WIDTH, height=HEIGHT, pixel_format=pixel_format)
    clip = Clip(path="", frames=frames, rate=Fraction(25), aspect=Fraction(4, 3))
    with open_writer(str(tmp_path / "a.mp4"), clip, frames, encoding=Encoding(crf=0)) as writer:
        for number in range(3):
            pixels = picture(number, white)
            writer.write(pixels, Frame(pixels=pixels))
    reader = open_reader(str(tmp_path / "a.mp4"), VideoFormat())
    assert dataclasses.replace(reader.clip.frames, chroma_location="left") == frames
    assert (reader.clip.rate, reader.clip.aspect) == (25, Fraction(4, 3))
    for number, frame in enumerate(reader):
        if white == 255 or pixel_format == "yuv444p10":
            assert np.abs(frame.pixels - picture(number, white)).max() <= white / 60
        else:
            assert np.abs(frame.pixels - picture(number, white)).mean() <= white / 60
    copy(tmp_path / "a.mp4", tmp_path / "b.y4m")
    assert open_reader(str(tmp_path / "b.y4m"), VideoFormat()).clip.frames.pixel_format == pixel_format


def test_sides_that_are_odd_are_kept(av, tmp_path):
    frames = PlanarFrames(width=31, height=15)
    with open_writer(str(tmp_path / "a.mp4"), Clip(path="", frames=frames), frames) as writer:
        pixels = picture(0)[:15, :31]
        writer.write(pixels, Frame(pixels=pixels))
    [found], _, _, (pixel_format, rate, _) = read(av, tmp_path / "a.mp4")
    assert found.shape == (15, 31, 3) and pixel_format == "yuv444p" and rate == 25


def test_full_range_and_matrix_are_used_and_kept(av, tmp_path):
    """Written with PyAV as BT.709 of full range; a reader that took it for anything else would see a tint."""
    frames = PlanarFrames(width=WIDTH, height=HEIGHT, full_range=True, matrix="bt709")
    clip = Clip(path="", frames=frames, colour_tags={"colorspace": 1})
    with open_writer(str(tmp_path / "a.mp4"), clip, frames, encoding=Encoding(crf=1)) as writer:
        writer.write(picture(0), Frame(pixels=picture(0)))
    [found], *_ = read(av, tmp_path / "a.mp4")
    assert_similar([found], [picture(0)])
    reader = open_reader(str(tmp_path / "a.mp4"), VideoFormat())
    assert reader.clip.frames.full_range and reader.clip.frames.matrix == "bt709"
    assert_similar([frame.pixels for frame in reader], [picture(0)], levels=2)


def test_what_cannot_be_read_or_written_is_one_line(av, tmp_path):
    write(av, tmp_path / "a.mp4", [picture(0)], sound=True)
    contents = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(contents[: len(contents) // 2])
    (tmp_path / "text.mkv").write_text("no video")
    for name, match in (
        ("half.mp4", "half.mp4: damaged video"),
        ("text.mkv", "text.mkv: damaged video"),
        ("none.mp4", "none.mp4: cannot be read .No such file"),
    ):
        with pytest.raises(DataError, match=match) as raised:
            open_reader(str(tmp_path / name), VideoFormat())
        assert "\n" not in str(raised.value)
    for name, encoding, match in (
        ("b.webm", Encoding(), "b.webm: cannot hold this video .*aac.*; choose .mkv"),
        ("b.avi", Encoding(), "b.avi: .avi is read but not written"),
        ("b.mp4", Encoding(codec="h999"), "PyAV has no encoder h999"),
    ):
        with pytest.raises(DataError, match=match):
            copy(tmp_path / "a.mp4", tmp_path / name, encoding=encoding)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "half.mp4", "text.mkv"]


def test_colours_that_are_not_known_are_refused(av, tmp_path):
    write(av, tmp_path / "a.mp4", [picture(0)], colorspace=9)  # BT.2020
    with pytest.raises(DataError, match="colour matrix number 9 .*convert it to bt709"):
        open_reader(str(tmp_path / "a.mp4"), VideoFormat())


def test_interlaced_video_is_refused(av, tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        track = container.add_stream("libx264", rate=25, options={"x264-params": "interlaced=1"})
        track.width, track.height, track.pix_fmt = WIDTH, 32, "yuv420p"
        container.mux(track.encode(av.VideoFrame(WIDTH, 32, "yuv420p")))
        container.mux(track.encode(None))
    with pytest.raises(DataError, match="a.mp4: is interlaced; deinterlace it first"):
        open_reader(str(tmp_path / "a.mp4"), VideoFormat())


def test_an_interruption_leaves_nothing(av, tmp_path):
    frames = PlanarFrames(width=WIDTH, height=HEIGHT)
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(str(tmp_path / "a.mp4"), Clip(path="", frames=frames), frames) as writer,
    ):
        writer.write(picture(0), Frame(pixels=picture(0)))
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_without_pyav_one_line_names_the_extra(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    frames = PlanarFrames(width=WIDTH, height=HEIGHT)
    match = "a.mp4: needs PyAV; install the extra 'video'"
    with pytest.raises(DataError, match=match):
        open_reader(str(tmp_path / "a.mp4"), VideoFormat())
    with (
        pytest.raises(DataError, match=match),
        open_writer(str(tmp_path / "a.mp4"), Clip(path="", frames=frames), frames),
    ):
        pass
    assert not os.listdir(tmp_path)
