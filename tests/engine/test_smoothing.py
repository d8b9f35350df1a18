"""Smoothing of a metric, against sums and windows in NumPy."""

import math

import numpy as np
import pytest

from engine.batching.plateau import PlateauDetector
from engine.errors import ConfigurationError
from engine.smoothing import CentredWindow, Exponential

VALUES = np.random.default_rng(0).normal(20.0, 2.0, size=25)


def smoothed(smoothing, values):
    state, found = smoothing.initial(), []
    for value in values:
        before = dict(state)
        after, new = smoothing.observe(state, float(value))
        assert state == before and after.keys() == before.keys()
        state = after
        found.append(new)
    return found


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_exponential_mean_is_the_weighted_sum(decay):
    expected = []
    for count in range(1, len(VALUES) + 1):
        weights = decay ** np.arange(count - 1, -1, -1.0)
        expected.append(np.sum(weights * VALUES[:count]) / np.sum(weights))
    np.testing.assert_allclose(smoothed(Exponential(decay=decay), VALUES), expected, rtol=1e-13)


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_the_centred_window_is_a_late_mean_that_is_cut_at_the_start(length):
    half = length // 2
    found = smoothed(CentredWindow(evaluations=length), VALUES)
    assert found[:half] == [None] * half
    centres = range(len(VALUES) - half)
    expected = [np.mean(VALUES[max(0, centre - half) : centre + half + 1]) for centre in centres]
    np.testing.assert_allclose(found[half:], expected, rtol=1e-14)


def test_what_is_not_finite_is_left_out():
    found = smoothed(Exponential(decay=0.5), [1.0, math.nan, 4.0, math.inf])
    np.testing.assert_allclose(found, [1.0, math.nan, (0.5 + 4.0) / 1.5, math.nan])
    window = CentredWindow(evaluations=3)
    assert smoothed(window, [1.0, math.nan, 5.0, 3.0])[1:] == [1.0, 3.0, 4.0]
    np.testing.assert_equal(smoothed(window, [math.nan, math.nan, 5.0])[1:], [math.nan, 5.0])


@pytest.mark.parametrize("smoothing", [Exponential(decay=0.7), CentredWindow(evaluations=5)])
@pytest.mark.parametrize("metric", ["psnr_db", "cycle_input_rmse"])
def test_a_smoothed_plateau_is_a_plateau_of_the_smoothed_values(smoothing, metric):
    settings = {"metric": metric, "patience": 1, "minimum_change": 0.05}
    detector, plain = PlateauDetector(**settings, smoothing=smoothing), PlateauDetector(**settings)
    state, expected = detector.initial(), plain.initial()
    fired = 0
    for value, smooth in zip(VALUES, smoothed(smoothing, VALUES), strict=True):
        state, plateaued = detector.observe(state, {metric: value})
        expects = False
        if smooth is not None:
            expected, expects = plain.observe(expected, {metric: smooth})
        assert plateaued == expects
        assert (detector.best(state), detector.waited(state)) == pytest.approx(
            (expected["best"], expected["waited"]), nan_ok=True
        )
        fired += plateaued
    assert fired > 2
    # Another smoothing finds nothing of this one in a checkpoint.
    others = (PlateauDetector(**settings, smoothing=CentredWindow(evaluations=3)), plain)
    assert not any(state.keys() & other.initial().keys() for other in others)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exponential(decay=1.0), "Exponential.decay = 1.0: must lie in [0, 1); "),
        (lambda: Exponential(decay=math.nan), "Exponential.decay = nan: must lie"),
        (lambda: CentredWindow(evaluations=4), "CentredWindow.evaluations = 4: must be odd"),
        (lambda: CentredWindow(evaluations=-1), "CentredWindow.evaluations = -1: must be odd"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert str(caught.value).startswith(message)
