"""Tiles cover an image, their weights sum to one, and what is known of seams is measured."""

import itertools

import numpy as np
import pytest
import scipy.ndimage

from engine.errors import ConfigurationError
from engine.tiling.blending import Disagreement, Joined, ramp
from engine.tiling.context_radius import context_radius
from engine.tiling.seams import seam_ratio
from engine.tiling.tile_plan import plan_tiles


@pytest.mark.parametrize("length", [64, 128, 132, 192, 1412, 4096])
@pytest.mark.parametrize("tile", [64, 100, 128])
@pytest.mark.parametrize("overlap", [0, 8, 30])
@pytest.mark.parametrize("multiple", [1, 4])
def test_tiles_cover_every_pixel_and_share_the_overlap(length, tile, overlap, multiple):
    plan = plan_tiles(length, length, tile=tile, overlap=overlap, multiple=multiple)
    starts, size = plan.rows, plan.height
    assert plan.columns == starts and plan.width == size and plan.tiles == len(starts) ** 2
    assert starts[0] == 0 and starts[-1] + size == length
    assert all(start % multiple == 0 for start in starts) and size % multiple == 0 and size <= tile
    for first, second in itertools.pairwise(starts):
        assert 2 * overlap <= first + size - second < size
    if length <= size:
        assert len(starts) == 1 and plan.row_borders == []


def test_an_axis_that_is_short_is_not_cut():
    plan = plan_tiles(40, 200, tile=64, overlap=8, multiple=4)
    assert (plan.height, plan.rows) == (40, (0,)) and plan.width == 64 and len(plan.columns) > 1


def test_an_overlap_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="--tile=64, --overlap=30: tiles must be larger"):
        plan_tiles(128, 128, tile=64, overlap=30, multiple=8)


@pytest.mark.parametrize("shared, margin", [(0, 0), (1, 0), (8, 0), (9, 3), (8, 4), (8, 100), (64, 16)])
def test_weights_rise_from_0_to_1_and_are_symmetric(shared, margin):
    weights = ramp(shared, margin)
    assert weights.shape == (shared,) and (np.diff(weights) >= 0).all()
    np.testing.assert_allclose(weights + weights[::-1], 1, atol=1e-6)  # the neighbour's, mirrored: one in all
    kept = margin if 2 * margin <= shared else shared // 4
    assert not weights[:kept].any() and (weights[shared - kept :] == 1).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("margin", [0, 5, 1000])
def test_parts_of_one_image_give_that_image(axis, margin):
    image = np.random.default_rng(0).random((90, 90, 2)).astype(np.float32)
    disagreement = Disagreement()
    joined = Joined(axis=axis, margin=margin, disagreement=disagreement)
    done = []
    for start in (0, 20, 35, 50):  # three cover the same pixels
        part = np.take(image, range(start, start + 40), axis=axis)
        done += [x for x in [joined.add(start, part)] if x is not None]
    np.testing.assert_allclose(np.concatenate([*done, joined.rest()], axis=axis), image, atol=1e-6)
    assert disagreement.mean == 0


def test_what_is_wrong_near_the_border_of_a_tile_is_not_used():
    """Within the margin only; behind it, the mean of differing tiles moves smoothly from one to the other."""
    disagreement = Disagreement()
    joined = Joined(axis=1, margin=4, disagreement=disagreement)
    first, second = np.zeros((1, 32, 1), np.float32), np.ones((1, 32, 1), np.float32)
    first[:, -4:] = np.nan
    second[:, :4] = np.nan
    first[:, -4:], second[:, :4] = 77, 77
    done = joined.add(0, first), joined.add(16, second)
    line = np.concatenate([done[1], joined.rest()], axis=1)[0, :, 0]
    assert not line[:20].any() and (line[28:] == 1).all()
    assert (np.diff(line) >= 0).all() and np.diff(line).max() < 0.25
    assert disagreement.mean == 1 and disagreement.count == 8


def test_a_seam_is_seen_and_a_smooth_image_has_none():
    image = scipy.ndimage.gaussian_filter(np.random.default_rng(0).random((128, 128, 3)), (2, 2, 0))
    assert seam_ratio(image, rows=[32, 64], columns=[64]) == pytest.approx(1, abs=0.2)
    image[:, 64:] += 0.1
    assert seam_ratio(image, rows=[], columns=[64]) > 3
    assert seam_ratio(image, rows=[64], columns=[]) == pytest.approx(1, abs=0.2)
    assert seam_ratio(np.zeros((9, 9, 1), np.uint8), rows=[4], columns=[]) == 1
    step = np.repeat(np.uint8([[0], [255]]), 8, axis=0)[..., np.newaxis]  # unsigned: 0 - 255 must not be 1
    assert seam_ratio(step, rows=[8], columns=[]) == np.inf


def noise(random, height, width):
    return random.uniform(-1, 1, (height, width, 2)).astype(np.float32)


@pytest.mark.parametrize("radius, multiple", [(0, 1), (3, 1), (10, 1), (10, 4), (40, 8)])
def test_the_radius_of_a_box_filter(radius, multiple):
    def function(x):
        return scipy.ndimage.uniform_filter(x, (1, 2 * radius + 1, 2 * radius + 1, 1), mode="reflect")

    found = context_radius(function, noise=noise, multiple=multiple, longest=64)
    assert found == -(-radius // multiple) * multiple


def test_the_radius_of_functions_that_shift_enlarge_or_see_everything():
    def shifted(x):  # to the left and down: the border behind matters, and the one above
        return np.roll(np.roll(x, -5, axis=2), 7, axis=1)

    # The first rows come from the last ones, so they depend on everything behind the border.
    assert context_radius(shifted, noise=noise, multiple=1, longest=32) is None
    enlarged = context_radius(lambda x: x.repeat(4, 1).repeat(4, 2), noise=noise, multiple=1, longest=32)
    assert enlarged == 0
    normed = context_radius(lambda x: x / x.std((1, 2), keepdims=True), noise=noise, multiple=1, longest=32)
    assert normed is None
