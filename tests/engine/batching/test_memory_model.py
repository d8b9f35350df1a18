"""The line through measured peaks, and the sizes that follow from it."""

import sys

import pytest

from engine.batching.memory_model import MemoryModel, largest_within, next_micro_batch


def test_line_through_points():
    # Batches 1, 2, 3 are -1, 0, 1 from their mean: slope (-108 + 132) / 2, constant 120 - 2 x 12.
    assert MemoryModel.fit([(1, 108), (2, 120), (3, 132)]) == MemoryModel(
        constant_bytes=96, bytes_per_example=12
    )
    # Off the line: means 3 and 130; covariance -2 x -30 + -1 x -10 + 3 x 40 = 190, spread 14.
    assert MemoryModel.fit([(1, 100), (2, 120), (6, 170)]) == MemoryModel(
        constant_bytes=round(130 - 3 * 190 / 14), bytes_per_example=14
    )


def test_line_that_falls_or_starts_below_zero():
    assert MemoryModel.fit([(4, 70)]) == MemoryModel(constant_bytes=70, bytes_per_example=0)
    assert MemoryModel.fit([(1, 90), (2, 80), (4, 70)]) == MemoryModel(constant_bytes=80, bytes_per_example=0)
    # Through the origin: (1 x 10 + 3 x 90) / (1 + 9).
    assert MemoryModel.fit([(1, 10), (3, 90)]) == MemoryModel(constant_bytes=0, bytes_per_example=28)


@pytest.mark.parametrize("budget, expected", [(0, 0), (109, 0), (110, 1), (119, 1), (120, 2), (1000, 90)])
def test_largest_within_a_budget(budget, expected):
    model = MemoryModel(constant_bytes=100, bytes_per_example=10)
    assert model.largest(budget) == expected
    assert model.at(expected + 1) > budget


def test_examples_that_cost_nothing():
    model = MemoryModel(constant_bytes=100, bytes_per_example=0)
    assert (model.largest(99), model.largest(100)) == (0, sys.maxsize)


def test_largest_never_contradicts_a_measurement():
    line = [(1, 110), (2, 120), (4, 140)]

    def largest(points, budget, **kwargs):
        return largest_within(points, budget_bytes=budget, **{"limit": 64, "exhausted": False} | kwargs)

    assert largest(line, 299) == 19
    assert largest(line, 299, limit=6) == 6
    assert largest(line, 299, exhausted=True) == 4
    assert largest(line, None) == 4
    assert largest(line, 139) == 3
    assert largest(line, 100) == 0
    assert largest([(1, 100), (2, 100), (4, 160)], 161) == 4  # the line alone says 3
    assert largest([(1, 100), (2, 100), (4, 160)], 159) == 3  # and here that 4 fits


def test_sizes_double_until_the_budget_cuts_one_short():
    def following(points, budget, limit=64):
        return next_micro_batch(points, resting_bytes=80, budget_bytes=budget, limit=limit)

    line = [(1, 110), (2, 120), (4, 140)]
    assert following(line, 1000) == following(line, None) == 8
    assert following(line, 1000, limit=6) == 6
    assert following(line, 1000, limit=4) is None
    assert following(line, 165) == 6
    assert following([*line, (6, 159)], 10000) is None
    assert following(line, 140) is None
    # After one size the line starts from what rests between steps: 110 + 30 for the second.
    assert following(line[:1], 140) == 2 and following(line[:1], 139) is None
    assert following(line[:1], 109) is None
