"""A run, opened to be exported: its networks as plain models, and what it makes of some examples."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.exporting.comparison import check_finite
from engine.exporting.example_pictures import Examples, examples_of
from engine.exporting.picture_sizes import PictureSizes, find_sizes
from engine.exporting.translation import (
    RecordedNetwork,
    Translation,
    check_side_inputs,
)
from engine.inference.direction import source_of_direction
from engine.inference.evaluation_mode import EvaluationMode
from engine.inference.norm_mode import set_norm_mode
from engine.inference.restored_run import restore_run
from engine.input_pipeline.recorded_data import describe
from engine.outer_loop.trainer import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedRun:
    """A checkpoint of a run, in one mode.

    Attributes:
      trainer: of the run.
      translation: with its networks in float32, on one device.
      sizes: that they take.
      examples: on which exports are compared with the run.
      expected: what the run itself makes of them, float32 [N, H', W', C].
      calls: (inputs, outputs) of each call of each network that this took, by the name of the network.
      is_exact: whether the run computes in at least float32, as exports do.
      mode: its weights and mode, for people.
      suffix: of the splits of its evaluations in this mode.
    """

    trainer: Trainer
    translation: Translation
    sizes: PictureSizes
    examples: Examples
    expected: tf.Tensor
    calls: dict[str, list[tuple[Any, Any]]]
    is_exact: bool
    mode: str
    suffix: str


def open_for_export(
    workdir: str,
    *,
    checkpoint: str,
    mode: EvaluationMode,
    direction: str | None,
    data_dir: str | None,
    examples: int,
) -> ExportedRun:
    """Restores a run and translates examples with it.

    Args:
      workdir: run directory.
      checkpoint: "latest", "best", or a position in examples.
      mode: of the networks.
      direction: "AtoB" or "BtoA"; None is the direction of the run.
      data_dir: folder of the prepared data sets; None is that of the run's configuration.
      examples: how many.

    Raises:
      ConfigurationError: the run or an argument cannot be used.
      data.errors.DataError: the run has no dataset.json, and its data set is missing.
      engine.errors.NonFiniteOutputError: a result of the run is not finite.
    """
    trainer = restore_run(workdir, checkpoint=checkpoint, data_dir=data_dir)
    experiment = trainer.experiment
    task, data = experiment.task, describe(experiment.data)
    source = source_of_direction(direction, data, task)
    check_side_inputs(task)
    in_use = mode.apply(trainer.state)
    recorded = {name: RecordedNetwork(network) for name, network in in_use.networks.items()}
    own = Translation(task=task, data=data, networks=recorded, source=source)
    found = examples_of(own, experiment.data, count=examples)
    expected = own.rgb(found.features)
    check_finite(expected, what="an example")
    used = [name for name, network in recorded.items() if network.is_used]
    set_precision("float32")
    # Plain models, whatever the strategy and the precision of the run.
    networks = dict(task.networks(experiment.data.example_spec))
    for name in used:
        networks[name].set_weights(in_use.networks[name].get_weights())
    set_norm_mode(networks.values(), mode.norm_mode)
    translation = dataclasses.replace(own, networks={name: networks[name] for name in used})
    return ExportedRun(
        trainer=trainer,
        translation=translation,
        sizes=find_sizes(translation, dict(experiment.data.example_spec)),
        examples=found,
        expected=expected,
        calls={name: _in_float32(recorded[name].calls) for name in used},
        is_exact=experiment.precision in ("float32", "float64"),
        mode=in_use.description,
        suffix=in_use.suffix,
    )


def _in_float32(calls: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return keras.tree.map_structure(lambda x: tf.cast(x, tf.float32), calls)
