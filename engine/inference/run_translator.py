"""Translating pictures with the networks of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction

import keras
import tensorflow as tf

from data.roles import INPUT, SIDE_MAP, SIDE_VECTOR, TARGET
from engine.evaluation.split_batches import dropout_keys_at
from engine.inference.batch_function import BatchFunction
from engine.inference.direction import source_of_direction
from engine.inference.evaluation_mode import EvaluationMode
from engine.inference.restored_run import restore_run
from engine.inference.size_check import SizeCheck
from engine.inference.translator import Translator
from engine.input_pipeline.pictures import to_network, to_rgb
from engine.input_pipeline.recorded_data import describe
from engine.pictures.role_format import role_format
from engine.pictures.side_inputs import find_side_maps, parse_side_vector
from engine.replica_context import set_dropout_keys
from engine.task import LATENT_CODE


def translator_of_run(
    workdir: str,
    *,
    checkpoint: str,
    mode: EvaluationMode,
    side_vector: str | None = None,
    side_map: str | None = None,
    maps_in_memory: bool = False,
    direction: str | None = None,
) -> Translator:
    """Loads the networks of a run.

    Args:
      workdir: run directory.
      checkpoint: "latest", "best", or a position in examples.
      mode: which weights are used, and what batch norm and dropout do.
      side_vector: side information for every picture, if the networks take a vector: numbers such as
        "0.3,1", or the name of a class of the run's data set.
      side_map: folder with a map for each picture, if the networks take maps.
      maps_in_memory: the maps come with the pictures instead, so no folder is needed.
      direction: "AtoB" or "BtoA"; None is the direction of the run.

    Raises:
      ConfigurationError: the run or an argument cannot be used.
      data.errors.DataError: the maps, or the data set of an older run that has not recorded it, cannot be
        used.
    """
    trainer = restore_run(workdir, checkpoint=checkpoint)
    task, data = trainer.experiment.task, describe(trainer.experiment.data)
    source = source_of_direction(direction, data, task)
    result = TARGET if source == INPUT else INPUT
    example = trainer.experiment.data.example_spec
    vector = parse_side_vector(
        task.side_inputs, example, side_vector=side_vector, class_names=data.side_classes
    )
    side_maps = find_side_maps(task.side_inputs, data, side_map=side_map, in_memory=maps_in_memory)
    used = mode.apply(trainer.state)
    networks = used.networks
    picture_format = role_format(data, source)

    def translate(
        pictures: tf.Tensor,
        maps: tf.Tensor | None = None,
        codes: tf.Tensor | None = None,
        positions: tf.Tensor | None = None,
    ) -> tf.Tensor:
        batch = {source: to_network(data, pictures, role=source)}
        if vector is not None:
            batch[SIDE_VECTOR] = tf.repeat(tf.constant([vector]), tf.shape(pictures)[0], axis=0)  # [B, K]
        if maps is not None:
            batch[SIDE_MAP] = to_network(data, maps, role=SIDE_MAP)
        if codes is not None:
            batch[LATENT_CODE] = codes
        run = task.translate_back if source == TARGET else task.translate
        has_keys = used.dropout and positions is not None
        with set_dropout_keys(dropout_keys_at(positions) if has_keys else None):
            return run(networks, _in_floatx(batch))

    def encode(pictures: tf.Tensor) -> tf.Tensor:
        images = to_network(data, pictures, role=TARGET)
        return task.encode(networks, tf.cast(images, keras.config.floatx()))

    def trace(height: int, width: int) -> None:
        specs = [tf.TensorSpec([1, height, width, picture_format.channels], tf.float32)]
        if side_maps is not None:
            specs.append(tf.TensorSpec([1, height, width, side_maps.format.channels], tf.float32))
        tf.function(translate, autograph=False).get_concrete_function(*specs)

    sizes = SizeCheck(task, networks=networks.values(), example=example, source=source, trace=trace)
    compiled = BatchFunction(translate, devices=trainer.devices)
    return Translator(
        description=f"{workdir} at {trainer.examples} examples, {used.description}",
        input=picture_format,
        output=role_format(data, result),
        check_size=sizes.check,
        translate=_naming_sizes(compiled, sizes),
        compiled=compiled,
        trace_size=_naming_sizes_of_trace(trace, sizes),
        factor=Fraction(example[result].shape[0], example[source].shape[0]),
        has_dropout=used.dropout,
        to_rgb=functools.partial(to_rgb, data),
        side_maps=side_maps,
        latent_size=task.latent_size,
        encode=encode if task.latent_size else None,
    )


def _naming_sizes(function: BatchFunction, sizes: SizeCheck) -> Callable[..., tf.Tensor]:
    """The same function, whose errors about sizes of pictures say so."""

    def checked(pictures: tf.Tensor, *others: tf.Tensor | None) -> tf.Tensor:
        with sizes.reraise_errors(*pictures.shape[1:3]):
            return function(pictures, *others)

    return checked


def _naming_sizes_of_trace(trace: Callable[[int, int], None], sizes: SizeCheck) -> Callable[[int, int], None]:
    def checked(height: int, width: int) -> None:
        with sizes.reraise_errors(height, width):
            trace(height, width)

    return checked


def _in_floatx(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: tf.cast(values, keras.config.floatx()) for name, values in batch.items()}
