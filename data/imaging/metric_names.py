"""Names of evaluation metrics: which way each improves, and which one chooses the best checkpoint.

An evaluation names the metrics of a reconstruction, or of one direction, by a name in front of the metric:
"cycle_input_psnr_db". `data.imaging.metrics.HIGHER_IS_BETTER` lists the metrics themselves.
"""

from data.imaging.metrics import HIGHER_IS_BETTER

_OF_DISTRIBUTIONS = ("fid", "kid")
"""Metrics that compare the translations of a split with its real images, whether these are paired or not."""

_OF_LABELS = {"classes": "accuracy", "numbers": "rmse"}
"""The metric that chooses the best checkpoint by the kind of the targets."""

MORE_METRICS = ("ms_ssim", "luma_psnr_db", "luma_ssim", "mask_iou", "mask_dice", "pixel_accuracy")
"""Metrics of images that an evaluation measures where a user chooses them."""

LEARNED_METRIC = "lpips"
"""Measured where its weights are given."""


def metric_of(name: str) -> str | None:
    """The metric of a name: "psnr_db" of "psnr_db" and "cycle_input_psnr_db"; None if unknown."""
    if name in HIGHER_IS_BETTER:
        return name
    ends = [metric for metric in HIGHER_IS_BETTER if name.endswith(f"_{metric}")]
    return max(ends, key=len, default=None)


def higher_is_better(name: str) -> bool:
    """Whether a higher value of the metric is better.

    Raises:
      KeyError: there is no such metric.
    """
    metric = metric_of(name)
    if metric is None:
        raise KeyError(name)
    return HIGHER_IS_BETTER[metric]


def needs_targets(name: str) -> bool:
    """Whether the metric compares translations with their targets, which unpaired data do not have."""
    return name == metric_of(name) and name not in _OF_DISTRIBUTIONS


def is_of_features(name: str) -> bool:
    """Whether the metric compares features, so that figures of different extractors are not comparable."""
    return metric_of(name) in _OF_DISTRIBUTIONS


def default_metric(*, is_paired: bool, target_kind: str | None = None) -> str:
    """The metric that chooses the best checkpoint unless the user names one.

    Args:
      is_paired: whether each target is the ground truth of its input.
      target_kind: "classes" or "numbers" if targets are labels.
    """
    if target_kind is not None:
        return _OF_LABELS[target_kind]
    return "psnr_db" if is_paired else "kid"


def known_metrics() -> str:
    """What a user may write, for error messages."""
    return f"{', '.join(HIGHER_IS_BETTER)}, or one of a reconstruction such as 'cycle_input_psnr_db'"
