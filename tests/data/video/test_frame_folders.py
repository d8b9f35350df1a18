"""Folders of pictures as video, and video as a folder of pictures."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.errors import DataError
from data.formats.planar_frames import PlanarFrames
from data.formats.raw_video import VideoFormat
from data.video.clip import Clip, Frame
from data.video.files import open_writer
from data.video.frame_folder import FolderReader

RNG = np.random.default_rng(0)


def written(folder, frames, pixels, chroma=None):
    """Writes one frame; the PNG as Pillow reads it."""
    with open_writer(str(folder), Clip(path="", frames=frames), frames) as writer:
        writer.write(pixels, Frame(pixels=pixels, chroma=chroma))
    assert os.listdir(folder) == ["frame_000001.png"]
    return Image.open(folder / "frame_000001.png")


def test_frames_are_numbered_pictures(tmp_path):
    frames = PlanarFrames(width=5, height=3)
    noise = RNG.uniform(-20, 280, (12, 3, 5, 3)).astype(np.float32)
    with open_writer(str(tmp_path / "out"), Clip(path="", frames=frames), frames) as writer:
        for pixels in noise:
            writer.write(pixels, Frame(pixels=pixels))
    names = sorted(os.listdir(tmp_path / "out"))
    assert names == [f"frame_{number:06}.png" for number in range(1, 13)]
    for name, pixels in zip(names, noise, strict=True):
        found = np.asarray(Image.open(tmp_path / "out" / name))
        np.testing.assert_array_equal(found, np.clip(np.floor(pixels + 0.5), 0, 255))


def test_ten_bits_become_sixteen(tmp_path):
    frames = PlanarFrames(width=2, height=1, pixel_format="yuv420p10")
    pixels = np.array([[[0, 512, 1023], [1, 2, 3]]], np.float32)
    written(tmp_path / "out", frames, pixels)
    found = tf.io.decode_png((tmp_path / "out" / "frame_000001.png").read_bytes(), dtype=tf.uint16).numpy()
    np.testing.assert_array_equal(found, np.round(pixels * 65535 / 1023))


@pytest.mark.parametrize("colours", ["ycbcr", "y"])
def test_planes_are_shown_in_their_colours(tmp_path, colours):
    """Red is (81, 90, 240) in the studio range of BT.601, as many test signals hold it."""
    frames = PlanarFrames(width=2, height=2, colours=colours)
    red = np.broadcast_to(np.float32([81, 90, 240]), (2, 2, 3))
    pixels = red if colours == "ycbcr" else red[..., :1]
    chroma = None if colours == "ycbcr" else np.array([[[90]], [[240]]], np.uint8)
    found = np.asarray(written(tmp_path / "out", frames, pixels, chroma), int)
    assert np.abs(found - [255, 0, 0]).max() <= 1


def test_pictures_in_natural_order_become_frames(tmp_path):
    names = ["frame_10.png", "frame_2.png", "frame_1.png", "frame_01.png"]
    for number, name in enumerate(names):
        Image.fromarray(np.full((3, 4), number, np.uint8)).save(tmp_path / name)
    reader = FolderReader([str(tmp_path / name) for name in names], VideoFormat())
    assert (reader.clip.total, reader.clip.frames.width, reader.clip.frames.height) == (4, 4, 3)
    read = [frame.pixels for frame in reader]
    assert all(pixels.shape == (3, 4, 3) and pixels.dtype == np.uint8 for pixels in read)
    assert [pixels[0, 0, 0] for pixels in read] == [3, 2, 1, 0]


def test_depth_follows_the_pixel_format(tmp_path):
    deep = np.array([[0, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    for pixel_format, expected in (("yuv420p", [0, 128, 255]), ("yuv444p10", [0, 512, 1023])):
        [frame] = FolderReader([str(tmp_path / "a.png")], VideoFormat(pixel_format=pixel_format))
        np.testing.assert_array_equal(frame.pixels[0, :, 0], expected)


def test_frames_of_several_sizes_are_refused(tmp_path):
    for name, size in (("a.png", (4, 3)), ("b.png", (4, 4))):
        Image.new("RGB", size).save(tmp_path / name)
    read = []
    with pytest.raises(DataError, match="b.png: is 4x4 among frames of 4x3"):
        for frame in FolderReader([str(tmp_path / "a.png"), str(tmp_path / "b.png")], VideoFormat()):
            read.append(frame)
    assert len(read) == 1
