"""engine.translate of videos, with networks whose outputs are known: frames, formats and headers."""

import functools
import os
import resource
import signal
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import engine.translate
from data.description import ImageFormat
from data.formats import image_reader
from data.formats.image_info import ImageRef
from data.formats.planar_frames import PIXEL_FORMATS, PlanarFrames
from data.formats.raw_video import VideoFormat
from data.video.raw_writer import RawWriter
from engine.inference.batch_function import BatchFunction
from engine.inference.translator import Translator
from engine.pictures.role_format import RoleFormat
from models.networks.generators import check_image_size

RNG = np.random.default_rng(0)
SIZE = WIDTH, HEIGHT = 22, 14
"""Pixels of a frame: no multiples of the 4 that the networks here ask for."""


def translator(function, *, factor=1, inputs=3, outputs=3, stored=None, most=8):
    """A network that takes sizes that are multiples of 4, as "resnet_6blocks" does.

    Its memory suffices for a batch of `most`.
    """
    compiled = BatchFunction(lambda pictures, *_: function(pictures))

    def translate(pictures, *others):
        if len(pictures) > most:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return compiled(pictures, *others)

    return Translator(
        description="a known function",
        input=RoleFormat(channels=inputs, stored=stored),
        output=RoleFormat(channels=outputs),
        check_size=functools.partial(check_image_size, "resnet_6blocks"),
        translate=translate,
        compiled=compiled,
        factor=Fraction(factor),
    )


@pytest.fixture
def program(translate, monkeypatch):
    """Runs the program with a function as its network."""

    def run(function=tf.identity, *, network=None, **flags):
        made = translator(function, **(network or {}))
        monkeypatch.setattr(engine.translate, "translator_of_torch_file", lambda *_, **__: made)
        return translate(torch_checkpoint="net_G.pth", **flags)

    return run


def smooth_frames(pixel_format, count, size=SIZE):
    """Bytes of frames of colours near grey, which RGB holds without clipping."""
    frames = PlanarFrames(width=size[0], height=size[1], pixel_format=pixel_format)
    scale, pixels = 2 ** (frames.bits - 8), size[0] * size[1]
    samples = RNG.integers(118 * scale, 138 * scale, (count, frames.frame_bytes // frames.dtype.itemsize))
    samples[:, :pixels] = RNG.integers(60 * scale, 190 * scale, (count, pixels))
    return [frame.astype(frames.dtype.newbyteorder("<")).tobytes() for frame in samples]


def write_y4m(path, frames, pixel_format, size=SIZE, header=b"F30000:1001 Ip A1:1 Xnote\xff"):
    tags = {"yuv420p": "420jpeg", "yuv444p": "444", "yuv420p10": "420p10", "yuv444p10": "444p10"}
    first = b"YUV4MPEG2 W%d H%d C%s %s\n" % (*size, tags[pixel_format].encode(), header)
    path.write_bytes(first + b"".join(b"FRAME\n" + frame for frame in frames))
    return first


def samples_of(path, pixel_format, size=SIZE):
    """Samples of all frames [frames, N] of a .y4m whose frames have no parameters."""
    frames = PlanarFrames(width=size[0], height=size[1], pixel_format=pixel_format)
    body = path.read_bytes().split(b"\n", 1)[1]
    rows = np.frombuffer(body, np.uint8).reshape(-1, frames.frame_bytes + 6)
    assert all(bytes(row[:6]) == b"FRAME\n" for row in rows)
    return np.ascontiguousarray(rows[:, 6:]).view(frames.dtype).astype(int)


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_an_identity_keeps_planes_bit_for_bit(program, tmp_path, pixel_format):
    """Also of 4:2:0: chroma is repeated, and averaged back. float32 carries 10 bits."""
    write_y4m(tmp_path / "a.y4m", smooth_frames(pixel_format, 10), pixel_format)
    code, told, errors = program(
        input=tmp_path / "a.y4m", output=tmp_path / "b.y4m", video_colours="ycbcr", batch=4
    )
    assert (code, errors) == (0, "")
    expected = f"translated 10 frames of {tmp_path / 'a.y4m'} into {tmp_path / 'b.y4m'} with a known function"
    assert told.splitlines() == [expected]
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "a.y4m").read_bytes()


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_an_identity_keeps_colours_to_rounding(program, tmp_path, pixel_format):
    """RGB of studio range is rounded finer than luma and 4:4:4 chroma are, so these come back exactly.

    Subsampled chroma may differ by 2, as `test_planar_frames` explains.
    """
    header = write_y4m(tmp_path / "a.y4m", smooth_frames(pixel_format, 3), pixel_format)
    assert program(input=tmp_path / "a.y4m", output=tmp_path / "b.y4m")[0] == 0
    assert (tmp_path / "b.y4m").read_bytes().startswith(header + b"FRAME\n")
    before, after = (samples_of(tmp_path / name, pixel_format) for name in ("a.y4m", "b.y4m"))
    step, bits = PIXEL_FORMATS[pixel_format]
    assert after.max() > 255 or bits == 8
    np.testing.assert_array_equal(after[:, : WIDTH * HEIGHT], before[:, : WIDTH * HEIGHT])
    assert np.abs(after - before).max() <= (2 if step == 2 else 0)


def test_luma_alone_is_translated_and_chroma_kept(program, tmp_path):
    """The network inverts: luma x becomes 255 - x."""
    network = {"inputs": 1, "outputs": 1}
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 2), "yuv420p")
    flags = {"input": tmp_path / "a.y4m", "output": tmp_path / "b.y4m", "network": network}
    assert program(tf.negative, **flags, video_colours="y")[0] == 0
    before, after = (samples_of(tmp_path / name, "yuv420p") for name in ("a.y4m", "b.y4m"))
    count = WIDTH * HEIGHT
    np.testing.assert_array_equal(after[:, :count], 255 - before[:, :count])
    np.testing.assert_array_equal(after[:, count:], before[:, count:])
    code, _, errors = program(tf.negative, **flags)
    assert code == 2 and "takes 1; add --video_colours=y" in errors and errors.count("\n") == 1


def doubled(pictures):
    return tf.repeat(tf.repeat(pictures, 2, axis=1), 2, axis=2)


@pytest.mark.parametrize("colours", ["ycbcr", "y"])
def test_super_resolution_writes_larger_frames(program, tmp_path, colours):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 5), "yuv420p")
    channels = 1 if colours == "y" else 3
    network = {"factor": 2, "inputs": channels, "outputs": channels}
    flags = {"input": tmp_path / "a.y4m", "output": tmp_path / "b.y4m", "video_colours": colours, "batch": 2}
    assert program(doubled, network=network, **flags)[0] == 0
    assert (tmp_path / "b.y4m").read_bytes().startswith(b"YUV4MPEG2 W44 H28 C420jpeg F30000:1001")
    before = samples_of(tmp_path / "a.y4m", "yuv420p")
    after = samples_of(tmp_path / "b.y4m", "yuv420p", (44, 28))
    assert len(after) == 5
    luma, larger = before[:, : WIDTH * HEIGHT], after[:, : 4 * WIDTH * HEIGHT]
    np.testing.assert_array_equal(
        larger.reshape(5, 28, 44), np.kron(luma.reshape(5, 14, 22), np.ones((1, 2, 2), int))
    )
    chroma = before[:, WIDTH * HEIGHT :].reshape(5, 2, 7, 11)
    found = after[:, 4 * WIDTH * HEIGHT :].reshape(5, 2, 14, 22)
    if colours == "ycbcr":
        np.testing.assert_array_equal(found, np.kron(chroma, np.ones((1, 1, 2, 2), int)))
    else:  # interpolated: means are kept, edges aside
        assert np.abs(found.mean(axis=(2, 3)) - chroma.mean(axis=(2, 3))).max() < 1


def test_tiles_of_an_identity_are_seamless(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv444p", 2, (100, 60)), "yuv444p", (100, 60))
    code, told, _ = program(
        input=tmp_path / "a.y4m", output=tmp_path / "b.y4m", video_colours="ycbcr", tile=32, overlap=4
    )
    assert code == 0 and "note: frames are translated in tiles of 32 pixels with an overlap of 4" in told
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "a.y4m").read_bytes()


def test_frames_go_one_by_one_if_a_batch_does_not_fit_into_memory(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 5), "yuv420p")
    flags = {"input": tmp_path / "a.y4m", "output": tmp_path / "b.y4m", "video_colours": "ycbcr"}
    assert program(**flags, network={"most": 1})[0] == 0
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "a.y4m").read_bytes()
    os.remove(tmp_path / "b.y4m")
    code, _, errors = program(**flags, network={"most": 0})
    assert code == 2 and f"{tmp_path / 'a.y4m'}: 24x16 pixels do not fit into the memory" in errors
    assert os.listdir(tmp_path) == ["a.y4m"]


def test_a_colour_network_that_makes_grey(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv444p", 1), "yuv444p")
    network = {"outputs": 1}
    assert (
        program(
            lambda x: x[..., :1] * 0, network=network, input=tmp_path / "a.y4m", output=tmp_path / "b.y4m"
        )[0]
        == 0
    )
    grey = samples_of(tmp_path / "b.y4m", "yuv444p")
    assert set(grey[0, : WIDTH * HEIGHT]) == {round(16 + 219 * 127.5 / 255)}
    assert set(grey[0, WIDTH * HEIGHT :]) == {128}


def test_a_clip_becomes_a_folder_of_frames_and_a_clip_again(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv444p", 11), "yuv444p")
    code, told, _ = program(input=tmp_path / "a.y4m", output=tmp_path / "frames")
    assert code == 0 and "translated 11 frames" in told
    names = [f"frame_{number:06}.png" for number in range(1, 12)]
    assert sorted(os.listdir(tmp_path / "frames")) == names
    for number in (0, 10):
        pixels = image_reader.read_pixels(
            ImageRef(str(tmp_path / "a.y4m"), number), video=VideoFormat(), max_pixels=10_000
        )
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "frames" / names[number])), pixels)
    flags = {"video_rate": "30000/1001", "video_pixel_format": "yuv444p"}
    assert program(input=tmp_path / "frames", output=tmp_path / "b.y4m", **flags)[0] == 0
    assert (tmp_path / "b.y4m").read_bytes().startswith(b"YUV4MPEG2 W22 H14 F30000:1001 Ip A0:0 C444 XCOLOR")
    np.testing.assert_array_equal(
        samples_of(tmp_path / "b.y4m", "yuv444p"), samples_of(tmp_path / "a.y4m", "yuv444p")
    )


def test_frames_of_a_clip_are_translated_as_pictures_are(program, tmp_path):
    """Sizes are padded for both, and the function looks beyond the borders and is not linear."""

    def function(x):
        blurred = tf.nn.avg_pool2d(x, 5, strides=1, padding="SAME")
        return tf.tanh(2 * blurred - x[..., ::-1])

    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv444p", 3), "yuv444p")
    assert program(input=tmp_path / "a.y4m", output=tmp_path / "frames")[0] == 0
    assert program(function, input=tmp_path / "a.y4m", output=tmp_path / "of_clip")[0] == 0
    assert program(function, input=tmp_path / "frames", output=tmp_path / "of_frames")[0] == 0
    names = sorted(os.listdir(tmp_path / "frames"))
    assert len(names) == 3
    for name in names:
        one, other = (np.asarray(Image.open(tmp_path / way / name), int) for way in ("of_clip", "of_frames"))
        assert one.std() > 10 and one.shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["b.y4m", "b.mp4", "frames"])
def test_a_full_disk_is_one_line_and_leaves_no_part(program, tmp_path, name):
    """The limit of the size of a file stands for the disk."""
    if name == "b.mp4":
        pytest.importorskip("av", reason="PyAV, the extra 'video', is not installed")
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv444p", 40), "yuv444p")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        code, told, errors = program(input=tmp_path / "a.y4m", output=tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert code == 2 and errors.count("\n") == 1 and not told
    assert f"--output={tmp_path / name}: cannot be written (File too large)" in errors
    assert os.listdir(tmp_path) == ["a.y4m"]


def test_raw_samples_need_their_size(program, tmp_path):
    (tmp_path / "a.yuv").write_bytes(b"".join(smooth_frames("yuv420p10", 3)))
    flags = {"input": tmp_path / "a.yuv", "output": tmp_path / "b.yuv", "video_colours": "ycbcr"}
    code, _, errors = program(**flags)
    assert code == 2 and "--video_size=352x288" in errors
    assert program(**flags, video_size="22x14", video_pixel_format="yuv420p10")[0] == 0
    assert (tmp_path / "b.yuv").read_bytes() == (tmp_path / "a.yuv").read_bytes()


def test_frames_before_a_damaged_one_are_kept(program, tmp_path):
    frames = smooth_frames("yuv420p", 6)
    write_y4m(tmp_path / "a.y4m", frames, "yuv420p")
    whole = (tmp_path / "a.y4m").read_bytes()
    (tmp_path / "a.y4m").write_bytes(whole[:-1])
    flags = {"input": tmp_path / "a.y4m", "output": tmp_path / "b.y4m", "video_colours": "ycbcr", "batch": 4}
    code, told, errors = program(**flags)
    assert code == 2 and "translated 5 frames" in told
    assert errors == (
        f"{tmp_path / 'a.y4m'}: damaged video (frame 5 is truncated or begins wrong); replace it; the 5 "
        "frames before it are translated\n"
    )
    assert (tmp_path / "b.y4m").read_bytes() == whole[: -len(frames[5]) - 6]
    (tmp_path / "a.y4m").write_bytes(whole[: len(whole) - 6 * (len(frames[0]) + 6) + 20])
    code, told, errors = program(**flags | {"output": tmp_path / "c.y4m"})
    assert code == 2 and "frame 0" in errors and "translated" not in told + errors
    assert not (tmp_path / "c.y4m").exists()


def test_values_that_training_did_not_know_are_refused(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p10", 1), "yuv420p10")
    flags = {"input": tmp_path / "a.y4m", "output": tmp_path / "b.y4m"}
    for stored, code in (
        (ImageFormat(channels=3, dtype="uint16", value_range=(0, 4095)), 2),
        (ImageFormat(channels=3, dtype="uint16", value_range=(0, 1023)), 0),
        (ImageFormat(channels=3, dtype="uint8", value_range=(0, 255)), 0),
    ):
        found, _, errors = program(**flags, network={"stored": stored})
        assert found == code, errors
        assert code == 0 or "has 10-bit frames, but the run was trained on uint16 of 0 to 4095" in errors


def test_what_is_not_for_video_is_refused(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 1), "yuv420p")
    (tmp_path / "clips").mkdir()
    write_y4m(tmp_path / "clips" / "b.y4m", smooth_frames("yuv420p", 1), "yuv420p")
    Image.new("RGB", (8, 8)).save(tmp_path / "clips" / "c.png")
    source, target = tmp_path / "a.y4m", tmp_path / "out" / "b.y4m"
    for flags, expected in (
        ({"raw": True}, "--raw: is for pictures, not for video; leave it out"),
        ({"compare": True}, "--compare: is for pictures"),
        ({"skip_existing": True}, "--skip_existing: is for pictures"),
        ({"format": "jpeg"}, "--format=jpeg: is for pictures; a video has the format that --output ends in"),
        ({"output": source}, "would overwrite the input"),
        ({"output": tmp_path / "a.y4m" / "b.y4m"}, "cannot be written"),
        ({"output": source, "input": tmp_path / "clips"}, "clips/b.y4m among 2 files; give one video"),
        ({"output": target, "input": tmp_path / "none.y4m"}, "no picture there"),
        ({"video_rate": "0"}, "--video_rate=0: must be frames per second"),
        ({"video_rate": "fast"}, "--video_rate=fast: must be frames per second"),
        ({"video_colours": "y"}, "leave out --video_colours=y"),
    ):
        code, told, errors = program(**{"input": source, "output": target} | flags)
        assert code == 2 and errors.count("\n") == 1, errors
        assert expected in errors and not told
        assert not (tmp_path / "out").exists()
    flags = {"input": tmp_path / "clips", "output": tmp_path / "out"}
    code, _, errors = program(**flags, video_crf=20)
    assert code == 2 and "--video_...: such flags are for video, but neither" in errors
    code, _, errors = program(**flags)
    assert code == 2 and "b.y4m: is a video among pictures; translate it alone" in errors
    assert os.listdir(tmp_path / "out") == ["c.png"]


def test_an_output_that_is_not_finite_ends_with_3(program, tmp_path):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 3), "yuv420p")
    code, _, errors = program(lambda x: x / 0 * 0, input=tmp_path / "a.y4m", output=tmp_path / "b.y4m")
    assert code == 3 and "a.y4m, frame 0: the network's output is not finite" in errors
    assert os.listdir(tmp_path) == ["a.y4m"]


def test_an_interruption_leaves_nothing(program, tmp_path, monkeypatch):
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 3), "yuv420p")
    write = RawWriter.write

    def interrupted(self, pixels, source):
        write(self, pixels, source)
        raise KeyboardInterrupt

    monkeypatch.setattr(RawWriter, "write", interrupted)
    code, told, _ = program(input=tmp_path / "a.y4m", output=tmp_path / "b.y4m")
    assert (code, told) == (42, "") and os.listdir(tmp_path) == ["a.y4m"]


def test_an_mp4_keeps_its_frames_and_rate(program, tmp_path):
    av = pytest.importorskip("av", reason="PyAV, the extra 'video', is not installed")
    write_y4m(tmp_path / "a.y4m", smooth_frames("yuv420p", 7), "yuv420p")
    assert program(input=tmp_path / "a.y4m", output=tmp_path / "b.mp4", video_crf=1)[0] == 0
    assert program(input=tmp_path / "b.mp4", output=tmp_path / "c.mp4", video_crf=1)[0] == 0
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        frames = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    before = samples_of(tmp_path / "a.y4m", "yuv420p")
    assert np.abs(np.reshape(frames, before.shape).astype(int) - before).mean() < 3
    code, _, errors = program(input=tmp_path / "b.mp4", output=tmp_path / "d.webm", video_codec="x999")
    assert code == 2 and "no encoder x999" in errors
