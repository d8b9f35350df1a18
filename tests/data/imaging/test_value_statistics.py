"""Statistics of values, added image by image, against NumPy on all of them."""

import numpy as np
import pytest

from data.imaging import value_statistics
from data.imaging.value_statistics import Extreme, ValueStatistics, values_of


def statistics(images):
    found = ValueStatistics()
    for image in images:
        found.add(values_of(image))
    return found


def extremes(images):
    """(lowest, highest) of all images, by sorting all values."""
    values = np.concatenate([image.reshape(-1) for image in images])
    distinct, times = np.unique(values, return_counts=True)
    after = min(1, len(distinct) - 1)
    return (
        Extreme(float(distinct[0]), int(times[0]), float(distinct[after])),
        Extreme(float(distinct[-1]), int(times[-1]), float(distinct[-1 - after])),
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_extremes_are_those_of_all_values(seed, dtype):
    rng = np.random.default_rng(seed)
    high = 2 ** rng.integers(1, 8)
    images = [
        rng.integers(rng.integers(high), high, (rng.integers(1, 4), 3, 2)).astype(dtype) for _ in range(5)
    ]
    found = statistics(images)
    assert (found.lowest, found.highest) == extremes(images)
    assert found.size == sum(image.size for image in images)


def test_percentiles_are_near_those_of_all_values(monkeypatch):
    monkeypatch.setattr(value_statistics, "_MOST_SAMPLED", 20_000)
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(64, 64, 1)).astype(np.float32) for _ in range(100)]
    found = statistics(images)
    expected = np.percentile(np.concatenate(images), (1, 50, 99))
    # Three standard errors of these percentiles of 10,000 values of a normal distribution.
    np.testing.assert_allclose(found.percentiles(1, 50, 99), expected, rtol=0, atol=0.12)
    assert sum(map(len, found._samples)) <= 20_000


def test_small_images_are_sampled_whole():
    assert statistics([np.arange(6, dtype=np.uint8).reshape(1, 2, 3)]).distinct() == 6
