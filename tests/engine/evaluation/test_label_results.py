"""Metrics and intervals of labels against formulas, and an independent bootstrap."""

import numpy as np
import pytest

from engine.evaluation.label_results import ClassEvaluation, NumberEvaluation, metric_names
from engine.evaluation.text_table import table

DRAW = np.random.default_rng(0)


def numbers(predictions, targets, names=("height", "width"), **more):
    return NumberEvaluation(
        examples=len(targets),
        predictions=np.asarray(predictions, np.float64),
        targets=np.asarray(targets, np.float64),
        target_names=names,
        **more,
    )


def test_several_numbers_have_metrics_of_their_own():
    targets = DRAW.normal([100, -1], [30, 0.1], (25, 2))
    predictions = targets + DRAW.normal(0, [5, 0.2], (25, 2))
    found = numbers(predictions, targets)
    errors = predictions - targets
    expected = {"mse": np.mean(errors**2), "mae": np.mean(abs(errors)), "rmse": np.sqrt(np.mean(errors**2))}
    r2 = [1 - np.sum(e**2) / np.sum((t - t.mean()) ** 2) for e, t in zip(errors.T, targets.T, strict=True)]
    expected["r2"] = np.mean(r2)
    for k, name in enumerate(("height", "width")):
        mse = np.mean(errors[:, k] ** 2)
        expected |= {f"{name}_mse": mse, f"{name}_mae": np.mean(abs(errors[:, k]))}
        expected |= {f"{name}_rmse": np.sqrt(mse), f"{name}_r2": r2[k]}
    assert found.metrics == pytest.approx(expected, rel=1e-12)
    assert tuple(found.metrics) == metric_names("numbers", ("height", "width"))
    assert list(found.columns)[:4] == [
        "prediction height",
        "target height",
        "prediction width",
        "target width",
    ]
    intervals = found.intervals
    assert intervals.keys() == found.metrics.keys()
    assert all(low < found.metrics[name] < high for name, (low, high) in intervals.items())


def test_intervals_are_near_those_of_a_plain_bootstrap():
    targets = DRAW.normal(5, 2, (200, 1))
    predictions = 5 + 0.8 * (targets - 5) + DRAW.normal(0, 0.6, (200, 1))
    found = numbers(predictions, targets, names=("height",)).intervals
    rows = np.random.default_rng(1).integers(0, 200, (4000, 200))
    p, t = predictions[rows, 0], targets[rows, 0]
    squares = np.mean((p - t) ** 2, axis=1)
    ends = [2.5, 97.5]  # percentiles; BCa moves them by less than a tenth of the interval here
    for name, values in {"rmse": np.sqrt(squares), "r2": 1 - squares / np.var(t, axis=1)}.items():
        low, high = np.percentile(values, ends)
        np.testing.assert_allclose(found[name], (low, high), atol=0.1 * (high - low))


def test_targets_that_are_all_the_same():
    """R2 is 0, or 1 for exact predictions, as sklearn.metrics.r2_score."""
    targets = np.full((6, 1), 3.0)
    assert numbers(targets + 1, targets, names=("x",)).metrics["r2"] == 0
    exact = numbers(targets, targets, names=("x",))
    assert exact.metrics["r2"] == 1 and exact.intervals["r2"] == (1, 1)
    assert exact.intervals["rmse"] == (0, 0)


def test_classes_and_their_baseline():
    found = ClassEvaluation(
        examples=4,
        predictions=np.array([0, 1, 2, 1]),
        targets=np.array([0, 1, 1, 2]),
        cross_entropies=np.array([0.1, 0.2, 2.0, 3.0]),
        target_names=("cat", "dog", "owl"),
        mean_target=np.array([0.25, 0.5, 0.25]),
    )
    assert found.metrics == pytest.approx({"accuracy": 0.5, "cross_entropy": 1.325})
    baseline = {"accuracy": 0.5, "cross_entropy": 1.5 * np.log(2)}
    assert found.baselines == {"most frequent class, dog": pytest.approx(baseline)}
    assert found.columns["prediction"] == ["cat", "dog", "owl", "dog"]
    assert "baseline: most frequent class, dog" in table(found, split="val")
