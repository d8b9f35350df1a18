"""What the keys of train.jsonl and eval.jsonl mean to a reader: titles, units, and which value is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

QUALITY, LOSSES, SCHEDULE, DETAILS = "quality", "losses", "schedule", "details"
"""Groups of curves."""

_METRICS = {
    "mae": ("MAE", "grey levels"),
    "mse": ("MSE", "grey levels²"),
    "rmse": ("RMSE", "grey levels"),
    "psnr_db": ("PSNR", "dB"),
    "ssim": ("SSIM", ""),
    "ms_ssim": ("MS-SSIM", ""),
    "lpips": ("LPIPS", ""),
    "fid": ("FID", ""),
    "kid": ("KID", ""),
    "iou": ("IoU", ""),
    "dice": ("Dice", ""),
    "pixel_accuracy": ("Pixel accuracy", ""),
    "r2": ("R2", ""),
    "accuracy": ("Accuracy", ""),
    "cross_entropy": ("Cross-entropy", ""),
}
_HIGHER_IS_BETTER = ("psnr_db", "ssim", "iou", "dice", "accuracy", "r2")
_LOWER_IS_BETTER = ("mae", "mse", "lpips", "fid", "kid", "cross_entropy")
_REDUNDANT = ("mae", "mse")
"""Ends of names of metrics that say nearly what PSNR says."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
    """One logged quantity.

    Attributes:
      title: its name for a reader.
      unit: its unit; empty for a pure number.
      group: of the curves that it is shown with.
      scale: shown value / logged value.
      is_step: whether it is constant between two changes.
    """

    title: str
    unit: str = ""
    group: str = DETAILS
    scale: float = 1.0
    is_step: bool = False


_NAMED = {
    "global_batch": Quantity(title="Batch size", unit="examples", group=SCHEDULE, is_step=True),
    "learning_rate": Quantity(title="Learning rate", group=SCHEDULE, is_step=True),
    "accumulation": Quantity(title="Micro-batches in a step", is_step=True),
    "replicas": Quantity(title="Replicas", is_step=True),
    "examples_per_sec": Quantity(title="Speed", unit="examples/s"),
    "data_wait_fraction": Quantity(title="Waiting for data", unit="%", scale=100.0),
    "host_memory_bytes": Quantity(title="Host memory", unit="GiB", scale=2.0**-30),
    "device_memory_bytes": Quantity(title="Device memory, peak", unit="GiB", scale=2.0**-30),
    "skipped_steps": Quantity(title="Skipped steps", is_step=True),
}
_OF_PHASES = {
    "grad_norm": Quantity(title="Gradient norm"),
    "noise_scale": Quantity(title="Gradient noise scale", unit="examples"),
    "loss_scale": Quantity(title="Loss scale", is_step=True),
    "overflows": Quantity(title="Overflows", is_step=True),
}
_NOT_SHOWN = ("step", "examples", "epoch", "per_replica_batch", "sec_per_step", "time_unix")


def training_quantity(key: str) -> Quantity | None:
    """The quantity of a key of train.jsonl; None for keys that say nothing new as a curve."""
    if key in _NOT_SHOWN:
        return None
    if key in _NAMED:
        return _NAMED[key]
    kind, _, rest = key.partition("/")
    rest = rest.replace("/", ": ")
    if kind == "loss":
        return Quantity(title=f"Loss of {rest}", group=LOSSES)
    if kind == "learning_rate":
        return dataclasses.replace(_NAMED[kind], title=f"Learning rate of {rest}")
    if kind in _OF_PHASES:
        return dataclasses.replace(_OF_PHASES[kind], title=f"{_OF_PHASES[kind].title} of {rest}")
    return Quantity(title=key)


def metric_title(name: str, *, among: Iterable[str] = ()) -> tuple[str, str]:
    """Title and unit of a metric, such as "psnr_db" or "cycle_input_psnr_db".

    Args:
      name: of the metric.
      among: names of what is shown with it. Beside R2, or predictions, errors are of numbers in their own
        units.
    """
    title, unit = _title(name)
    is_of_numbers = any(each.endswith("r2") or each.startswith("prediction") for each in among)
    return title, "" if is_of_numbers and unit.startswith("grey levels") else unit


def _title(name: str) -> tuple[str, str]:
    for end in sorted(_METRICS, key=len, reverse=True):
        if name == end:
            return _METRICS[end]
        if name.endswith(f"_{end}"):
            title, unit = _METRICS[end]
            return f"{title} of {name.removesuffix(f'_{end}').replace('_', ' ')}", unit
    return name.replace("_", " "), ""


def metric_text(name: str, value: float) -> str:
    """The value of a metric with as many digits as a reader can use."""
    _, unit = metric_title(name)
    if unit and (abs(value) >= 1 or value == 0):
        return f"{value:,.2f}"
    if 0 < abs(value) < 0.01:  # such as KID by Inception
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"


def is_higher_better(name: str) -> bool | None:
    """Whether a higher value of a metric is better; None if that is not known."""
    if name.endswith(_HIGHER_IS_BETTER):
        return True
    return False if name.endswith(_LOWER_IS_BETTER) else None


def is_main_metric(name: str) -> bool:
    """Whether a metric belongs at the top of a page."""
    return is_higher_better(name) is not None and not name.endswith(_REDUNDANT)
