"""Pixels become the planes of a frame again: chroma against NumPy's least squares, frames against bounds."""

import numpy as np
import pytest

from data.formats import chroma
from data.formats.planar_frames import PIXEL_FORMATS, PlanarFrames

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("location", chroma.LOCATIONS)
@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (7, 5), (8, 6), (9, 2)])
def test_subsampling_is_least_squares_of_the_interpolation(location, height, width):
    small = -(-height // 2), -(-width // 2)
    columns = [
        chroma.interpolated(unit.reshape(1, *small), height=height, width=width, location=location).ravel()
        for unit in np.eye(small[0] * small[1])
    ]
    planes = RNG.normal(size=(2, height, width))
    expected = [np.linalg.lstsq(np.transpose(columns), plane.ravel(), rcond=None)[0] for plane in planes]
    found = chroma.subsampled(planes, location=location)
    np.testing.assert_allclose(found, np.reshape(expected, (2, *small)), atol=1e-10)
    there = chroma.interpolated(found, height=height, width=width, location=location)
    np.testing.assert_allclose(chroma.subsampled(there, location=location), found, atol=1e-10)


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (7, 5), (8, 6)])
def test_averages_are_those_of_the_pixels_of_a_sample(height, width):
    planes = RNG.normal(size=(2, height, width))
    found = chroma.averaged(planes)
    for y, x in np.ndindex(found.shape[1:]):
        block = planes[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        np.testing.assert_allclose(found[:, y, x], block.mean(axis=(1, 2)))
    small = RNG.normal(size=found.shape)
    whole = chroma.repeated(small, height=height, width=width)
    np.testing.assert_allclose(chroma.averaged(whole), small)


def noise(frames):
    """Samples of a frame: any values of the bits."""
    return RNG.integers(0, frames.peak + 1, frames.frame_bytes // frames.dtype.itemsize).astype(frames.dtype)


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
@pytest.mark.parametrize("width, height", [(8, 6), (7, 5), (1, 1)])
def test_planes_come_back_bit_for_bit(pixel_format, width, height):
    for colours in ("ycbcr", "y"):
        frames = PlanarFrames(width=width, height=height, pixel_format=pixel_format, colours=colours)
        samples = noise(frames)
        pixels = frames.to_pixels(samples).astype(np.float32)
        _, planes = frames.split(samples)
        back = frames.to_samples(pixels, chroma_samples=planes if colours == "y" else None)
        assert back.dtype == samples.dtype
        np.testing.assert_array_equal(back, samples)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
@pytest.mark.parametrize("location", chroma.LOCATIONS)
def test_colours_come_back_to_rounding(pixel_format, location, matrix, full_range):
    """RGB is rounded to whole numbers, so each of its values is wrong by at most 1/2.

    Luma is a mean of the three, and the weights of a chroma value have the absolute sum 1. Of full range both
    are thus wrong by at most 1/2 before they are rounded: by at most 1. Studio range divides that by 255/224
    or more: they come back exactly. The rows of the pseudo-inverse of the interpolation have absolute sums up
    to 2 ("center") or 1.71 ("left") along an axis, so subsampled chroma is wrong by at most 1/2 * 2 * 2
    before it is rounded: by at most 2.
    """
    frames = PlanarFrames(
        width=37,
        height=23,
        pixel_format=pixel_format,
        matrix=matrix,
        full_range=full_range,
        chroma_location=location,
    )
    # Colours near grey: RGB of noise in all planes would leave its range, and be clipped.
    scale = 2 ** (frames.bits - 8)
    count = frames.width * frames.height
    samples = RNG.integers(118 * scale, 138 * scale, frames.frame_bytes // frames.dtype.itemsize)
    samples[:count] = RNG.integers(60 * scale, 190 * scale, count)
    pixels = frames.to_pixels(samples.astype(frames.dtype))
    assert pixels.min() > 0 and pixels.max() < frames.peak
    error = np.abs(frames.to_samples(pixels.astype(np.float32)).astype(int) - samples)
    exact = 1 if full_range else 0
    assert error[:count].max() <= exact
    assert error[count:].max() <= (2 if frames.step == 2 else exact)


def test_values_are_rounded_and_clipped():
    frames = PlanarFrames(width=2, height=1, pixel_format="yuv444p", colours="y")
    luma = np.array([[[254.5], [300.0]]])
    np.testing.assert_array_equal(frames.to_samples(luma), [255, 255, 128, 128, 128, 128])
    np.testing.assert_array_equal(frames.to_samples(luma - 400), [0, 0, 128, 128, 128, 128])
    frames = PlanarFrames(width=2, height=1, pixel_format="yuv444p10")
    white = np.array([[[2000.0], [-5.0]]])  # grey becomes colour
    np.testing.assert_array_equal(frames.to_samples(white), [940, 64, 512, 512, 512, 512])
