"""The rule of early stopping, against a search in the whole series."""

import numpy as np
import pytest

from engine.early_stopping import EarlyStopping
from engine.errors import ConfigurationError
from engine.smoothing import CentredWindow

PER_EPOCH = 10


def rule_of(**settings):
    metric = settings.get("metric") or "psnr_db"
    return EarlyStopping(**settings).resolve(metric=metric, examples_per_epoch=PER_EPOCH)


def end_of(rule, positions, values, state=None, total=10**6):
    """Position of the evaluation at which a run ends, and its state there."""
    state = state or rule.initial()
    for examples, value in zip(positions, values, strict=True):
        state = rule.observe(state, {rule.metric: float(value)}, examples=examples, total=total)
        if rule.is_over(state):
            return examples, state
    return None, state


@pytest.mark.parametrize("metric", ["psnr_db", "mae", "cycle_B_ssim", "cycle_B_mse"])
def test_a_run_ends_at_the_first_evaluation_so_long_after_its_best(metric):
    rng = np.random.default_rng(1)
    ended = 0
    for _ in range(60):
        patience, change = int(rng.integers(1, 60)), float(rng.choice([0.0, 0.4]))
        positions = np.cumsum(rng.integers(1, 12, size=40)).tolist()  # a batch may jump over a period
        values = np.round(rng.normal(size=40), 1)
        gains = -values if metric.endswith(("mae", "mse")) else values
        best_at, best, expected = None, None, None
        for position, gain in zip(positions, gains, strict=True):
            if best is None or gain > best + change:
                best_at, best = position, gain
            elif position - best_at >= patience:
                expected = position
                break
        rule = rule_of(metric=metric, patience=patience, minimum_change=change)
        found, state = end_of(rule, positions, values)
        assert found == expected
        assert state["best"] == pytest.approx(abs(best) * np.sign(values[gains == best][0]))
        ended += expected is not None
    assert ended > 30


def test_patience_in_epochs_is_that_in_examples():
    positions, values = range(5, 200, 5), [1.0, 3.0] + [2.0] * 37
    ends = {end_of(rule_of(patience=length), positions, values)[0] for length in ("4ep", 40, "40ex")}
    assert ends == {50}
    rule = rule_of(patience="4ep")
    assert rule.earliest_stop(5) == end_of(rule, positions, [1.0] * 39)[0] == 45
    assert rule.earliest_stop(7) == end_of(rule, range(7, 280, 7), [1.0] * 39)[0] == 49


def test_a_centred_window_waits_from_the_evaluation_that_shows_the_improvement():
    rule = rule_of(patience=30, smoothing=CentredWindow(evaluations=5))
    # The mean of five is largest around 50, which the evaluation at 70 shows.
    values = [1, 1, 2, 3, 4, 3, 2, 1, 1, 1, 1, 1, 1]
    assert end_of(rule, range(10, 140, 10), values)[0] == 100
    assert rule.earliest_stop(10) == end_of(rule, range(10, 140, 10), [1.0] * 13)[0] == 60


def test_a_run_that_ended_goes_on_only_if_it_is_longer_or_more_patient():
    positions, values = list(range(10, 210, 10)), [5.0] + [4.0] * 19
    rule = rule_of(patience=50)
    at, state = end_of(rule, positions, values, total=200)
    assert at == 60
    for total in (100, 200):
        assert rule.is_over(rule.extend(state, examples=at, total=total))
    longer = rule.extend(state, examples=at, total=201)
    assert not rule.is_over(longer)
    rest = [position for position in positions if position > at]
    assert end_of(rule, rest, [4.0] * len(rest), longer, total=201)[0] == at + 50
    # What would have happened with more patience from the start.
    patient = rule_of(patience=90)
    assert patient.extend(state, examples=at, total=200) == state
    assert end_of(patient, rest, [4.0] * len(rest), state, total=200)[0] == 100
    assert end_of(patient, positions, values)[0] == 100
    # A run that goes on is not made longer by that.
    _, going = end_of(rule, positions[:3], values[:3], total=200)
    assert rule.extend(going, examples=30, total=400) == going


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "EarlyStopping.patience = 0: shorter than one example; "),
        ({"patience": "soon"}, "EarlyStopping.patience = 'soon': not a length of training; "),
        ({"patience": "50%"}, "EarlyStopping.patience = '50%': not a length of training"),
        ({"metric": "psnr"}, "EarlyStopping.metric = 'psnr': unknown; use one of mae, mse, rmse, psnr_db"),
        ({"minimum_change": -1.0}, "EarlyStopping.minimum_change = -1.0: must be at "),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigurationError) as caught:
        EarlyStopping(**settings)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_metric_that_was_not_measured_is_named_with_those_that_were():
    rule = rule_of(metric="cycle_input_ssim")
    with pytest.raises(
        ConfigurationError, match="EarlyStopping.metric = 'cycle_input_ssim': .*one of mae, ssim"
    ):
        rule.observe(rule.initial(), {"mae": 1.0, "ssim": 0.5}, examples=1, total=2)
