"""What an evaluation of predicted labels found: of numbers, or of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data.roles import CLASSES
from engine.evaluation.intervals import Interval, statistic_interval
from engine.evaluation.results import SplitEvaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelEvaluation(SplitEvaluation):
    """What evaluations of numbers and of classes have in common; see `SplitEvaluation`.

    Attributes:
      target_names: of the K numbers or classes.
      mean_target: mean training target, float64 [K]: of classes, how often each comes. None if there is no
        baseline.
    """

    target_names: tuple[str, ...]
    mean_target: np.ndarray | None = None

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Metrics of the baseline that needs no training, by its name; empty without `mean_target`."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberEvaluation(LabelEvaluation):
    """Predicted numbers, in the units of the targets.

    Of one number, the metrics are mean squared error "mse", mean absolute error "mae", "rmse", the root of
    the first, and "r2", the coefficient of determination 1 - sum of squared errors / sum of squared
    deviations of the targets from their mean over the split. (It is 0 for targets that are all the same, or
    1 if the predictions are exact, as in scikit-learn.) Of several numbers, each has these four, its name in
    front, "height_rmse"; without a name, "mse" and "mae" are of all numbers together, "rmse" the root of that
    "mse", and "r2" the mean over the numbers.

    Attributes:
      predictions: float64 [N, K].
      targets: float64 [N, K].
    """

    predictions: np.ndarray
    targets: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """MSE, MAE, RMSE and R2, of all numbers and of each."""
        return number_metrics(self.predictions, self.targets, names=self.target_names)

    @property
    def image_values(self) -> dict[str, np.ndarray]:
        """Squared and absolute errors of each image."""
        return _errors(self.predictions, self.targets, names=self.target_names)

    @property
    def intervals(self) -> dict[str, Interval]:
        """Of all metrics. That of an RMSE follows from that of the MSE, since a root keeps the order."""
        found = super().intervals
        for name in [name for name in found if name.endswith("mse")]:
            low, high = found[name]
            found[f"{name.removesuffix('mse')}rmse"] = float(np.sqrt(low)), float(np.sqrt(high))
        columns = [([self.target_names.index(name)], f"{name}_") for name in _several(self.target_names)]
        for chosen, prefix in [(list(range(len(self.target_names))), ""), *columns]:
            squares = [np.square(self.predictions[:, k] - self.targets[:, k]) for k in chosen]
            if not np.any(squares):
                found[f"{prefix}r2"] = 1.0, 1.0
                continue
            interval = statistic_interval([*squares, *(self.targets[:, k] for k in chosen)], _mean_r2)
            if interval is not None:
                found[f"{prefix}r2"] = interval
        return found

    @property
    def columns(self) -> dict[str, Sequence[float | str]]:
        """Prediction and target of each number, then the errors."""
        found: dict[str, Sequence[float | str]] = {}
        for k, name in enumerate(self.target_names):
            ending = f" {name}" if len(self.target_names) > 1 else ""
            found[f"prediction{ending}"] = self.predictions[:, k].tolist()
            found[f"target{ending}"] = self.targets[:, k].tolist()
        return found | super().columns

    @property
    def summary(self) -> str:
        """RMSE, MAE and R2 in one line."""
        found = self.metrics
        return f"RMSE {found['rmse']:.5g}, MAE {found['mae']:.5g}, R2 {found['r2']:.4f}"

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """The mean training target, for every image."""
        if self.mean_target is None:
            return {}
        always = np.broadcast_to(self.mean_target, self.targets.shape)
        return {"mean target": number_metrics(always, self.targets, names=self.target_names)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassEvaluation(LabelEvaluation):
    """Predicted classes.

    The metrics are "accuracy", the share of the images whose most probable class is theirs, and
    "cross_entropy", the mean of -log(probability of the image's class), in nats, without label smoothing.

    Attributes:
      predictions: index of the most probable class, int64 [N].
      targets: index of the image's class, int64 [N].
      cross_entropies: float64 [N].
    """

    predictions: np.ndarray
    targets: np.ndarray
    cross_entropies: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracy and cross-entropy."""
        return {name: float(np.mean(values)) for name, values in self.image_values.items()}

    @property
    def image_values(self) -> dict[str, np.ndarray]:
        """1 for an image whose class is found and 0 for another; and its cross-entropy."""
        hits = (self.predictions == self.targets).astype(np.float64)
        return {"accuracy": hits, "cross_entropy": self.cross_entropies}

    @property
    def columns(self) -> dict[str, Sequence[float | str]]:
        """Names of the predicted class and of the image's, then the metrics."""
        found: dict[str, Sequence[float | str]] = {
            "prediction": [self.target_names[k] for k in self.predictions],
            "target": [self.target_names[k] for k in self.targets],
        }
        return found | super().columns

    @property
    def summary(self) -> str:
        """Accuracy and cross-entropy in one line."""
        found = self.metrics
        return f"accuracy {100 * found['accuracy']:.2f} %, cross-entropy {found['cross_entropy']:.4f}"

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """The most frequent class of the training split; its cross-entropy is that of the frequencies."""
        if self.mean_target is None:
            return {}
        most = int(np.argmax(self.mean_target))
        with np.errstate(divide="ignore"):  # infinite for a class that never comes in training
            entropies = -np.log(self.mean_target[self.targets])
        found = {
            "accuracy": float(np.mean(self.targets == most)),
            "cross_entropy": float(np.mean(entropies)),
        }
        return {f"most frequent class, {self.target_names[most]}": found}


def metric_names(target_kind: str, target_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics of labels.

    Args:
      target_kind: `data.roles.CLASSES` or NUMBERS.
      target_names: of the K classes or numbers.
    """
    if target_kind == CLASSES:
        return ("accuracy", "cross_entropy")
    prefixes = ["", *(f"{name}_" for name in _several(target_names))]
    return tuple(f"{prefix}{metric}" for prefix in prefixes for metric in ("mse", "mae", "rmse", "r2"))


def number_metrics(predictions: np.ndarray, targets: np.ndarray, *, names: Sequence[str]) -> dict[str, float]:
    """The metrics of `NumberEvaluation`, of predictions and targets float64 [N, K].

    Args:
      predictions: [N, K].
      targets: [N, K].
      names: of the K numbers.
    """
    means = {name: float(np.mean(x)) for name, x in _errors(predictions, targets, names=names).items()}
    determined = _r2(np.square(predictions - targets), targets, axis=0)  # [K]
    of_each = dict(zip(_several(names), determined, strict=False))
    found = {}
    for prefix, r2 in [("", np.mean(determined)), *((f"{name}_", r2) for name, r2 in of_each.items())]:
        mse = means[f"{prefix}mse"]
        found[f"{prefix}mse"], found[f"{prefix}mae"] = mse, means[f"{prefix}mae"]
        found[f"{prefix}rmse"], found[f"{prefix}r2"] = float(np.sqrt(mse)), float(r2)
    return found


def _several(names: Sequence[str]) -> Sequence[str]:
    """The names that metrics have in front: none if there is one number only."""
    return names if len(names) > 1 else ()


def _errors(predictions: np.ndarray, targets: np.ndarray, *, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Squared and absolute errors of each image, float64 [N], by the name of the metric."""
    errors = predictions - targets  # [N, K]
    found = {"mse": np.mean(np.square(errors), axis=1), "mae": np.mean(np.abs(errors), axis=1)}
    for k, name in enumerate(_several(names)):
        found |= {f"{name}_mse": np.square(errors[:, k]), f"{name}_mae": np.abs(errors[:, k])}
    return found


def _r2(squares: np.ndarray, targets: np.ndarray, *, axis: int) -> np.ndarray:
    """1 - sum of squared errors / sum of squared deviations of the targets, along an axis."""
    residual = np.sum(squares, axis=axis)
    deviations = np.square(targets - np.mean(targets, axis=axis, keepdims=True))
    total = np.sum(deviations, axis=axis)
    # All targets are the same.
    undefined = np.where(residual == 0, 1.0, 0.0)
    return np.where(total == 0, undefined, 1.0 - residual / np.where(total == 0, 1.0, total))


def _mean_r2(*samples: np.ndarray, axis: int) -> np.ndarray:
    """The mean R2 of squared errors of K numbers and then their targets."""
    count = len(samples) // 2
    return np.mean([_r2(samples[k], samples[count + k], axis=axis) for k in range(count)], axis=0)
