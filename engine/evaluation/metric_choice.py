"""The metrics of images that an evaluation measures: the usual five, and those that a user chooses."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import tensorflow as tf

from data import imaging
from data.imaging.metric_names import LEARNED_METRIC, MORE_METRICS
from data.imaging.metrics import METRICS
from data.roles import INPUT, TARGET
from engine.errors import ConfigurationError
from engine.evaluation.image_metrics import Metric
from engine.evaluation.picture_scale import PictureScale
from engine.training_data import TrainingData


def check_names(names: Sequence[str], *, setting: str) -> None:
    """Raises ConfigurationError unless each is one of `data.imaging.metric_names.MORE_METRICS`.

    Args:
      names: of metrics.
      setting: that holds them, for the message.
    """
    known = ", ".join(MORE_METRICS)
    if isinstance(names, str):
        raise ConfigurationError(f"{setting} = {names!r}: must be a list, such as ['ms_ssim']; correct it")
    for name in names:
        if name in METRICS:
            raise ConfigurationError(f"{setting} = {name!r}: is measured always; leave it out")
        if name == LEARNED_METRIC:
            raise ConfigurationError(
                f"{setting} = {name!r}: is measured where its weights are given; set Experiment.lpips, or "
                "--lpips_weights of engine.evaluate"
            )
        if name not in MORE_METRICS:
            raise ConfigurationError(f"{setting} = {name!r}: unknown; use some of {known}")


def luma_border(data: TrainingData) -> int:
    """Pixels that luma metrics leave out on each side: the factor by which targets are larger than inputs.

    0 where they are not larger.
    """
    small, large = (data.example_spec[role].shape[0] for role in (INPUT, TARGET))
    return large // small if large > small else 0


def metrics_of(data: TrainingData, names: Iterable[str]) -> dict[str, Metric]:
    """The usual metrics and those of some names, by name.

    Args:
      data: whose images are measured.
      names: of `data.imaging.metric_names.MORE_METRICS`.
    """
    border = luma_border(data)
    more: dict[str, Metric] = {
        "ms_ssim": imaging.ms_ssim,
        "luma_psnr_db": functools.partial(imaging.luma_psnr_db, border=border),
        "luma_ssim": functools.partial(imaging.luma_ssim, border=border),
        "mask_iou": imaging.mask_iou,
        "mask_dice": imaging.mask_dice,
        "pixel_accuracy": imaging.pixel_accuracy,
    }
    return METRICS | {name: more[name] for name in names}


def check_shapes(name: str, metric: Metric, shape: tf.TensorShape, scale: PictureScale) -> None:
    """Checks that a metric takes the images of a data set.

    Args:
      name: of the metric.
      metric: to trace.
      shape: of an image, [H, W, C].
      scale: of the images.

    Raises:
      ConfigurationError: the images are too small, or have channels that it does not take.
    """
    images = tf.TensorSpec([None, *shape], scale.dtype)
    try:
        tf.function(lambda x, y: metric(x, y, scale.value_range), autograph=False).get_concrete_function(
            images, images
        )
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"metric {name!r}: cannot measure these images ({error}); leave it out of Experiment.metrics and "
            "--metrics"
        ) from error
