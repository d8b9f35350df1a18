"""An evaluation of labels as a text table."""

from __future__ import annotations

from engine.evaluation.label_results import LabelEvaluation

_TITLES = {"mse": "MSE", "mae": "MAE", "rmse": "RMSE", "r2": "R2", "accuracy": "accuracy"}
_TITLES |= {"cross_entropy": "cross-entropy"}
_WIDTH = 13  # of the longest title


def label_table(evaluation: LabelEvaluation, *, split: str) -> str:
    """The evaluation as a text table: metrics of the model with their intervals, and of the baseline.

    Args:
      evaluation: of numbers or of classes.
      split: that was evaluated.
    """
    rows = {"model": evaluation.metrics} | {
        f"baseline: {name}": found for name, found in evaluation.baselines.items()
    }
    several = evaluation.examples != 1
    lines = [f"{split}: {evaluation.examples} image{'s' if several else ''}"]
    if evaluation.mode:
        lines.append(evaluation.mode)
    intervals = evaluation.intervals
    names = list(evaluation.metrics)
    width = max(len(name) for name in [*names, "metric"])
    lines.append(
        f"{'':{width}}  "
        + "  ".join(f"{name:>{max(len(name), _WIDTH)}}" for name in rows)
        + "  95 % interval"
    )
    for name in names:
        values = "  ".join(f"{found[name]:{max(len(title), _WIDTH)}.5g}" for title, found in rows.items())
        low_high = intervals.get(name)
        interval = "" if low_high is None else f"  {low_high[0]:.5g} to {low_high[1]:.5g}"
        lines.append(f"{_TITLES.get(name, name):{width}}  {values}{interval}".rstrip())
    return "\n".join(lines)
