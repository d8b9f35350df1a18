"""What the networks of a run make of a split, batch by batch, on all replicas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data.roles import INPUT, TARGET
from engine.distribution.devices import Devices
from engine.distribution.strategy_run import gather_rows
from engine.evaluation.picture_scale import PictureScale
from engine.evaluation.split_batches import check_finite, decoded_names, replica_batch, split_batches
from engine.input_pipeline.pictures import to_picture
from engine.input_pipeline.recorded_data import unwrapped
from engine.replica_context import set_dropout_keys
from engine.task import Task
from engine.training_data import TrainingData

FORWARD, BACK = "", "back_"
"""Directions, as they stand before the name of a metric: from inputs to targets, and back."""

Pair = tuple[tf.Tensor, tf.Tensor]


class TranslatedBatch(NamedTuple):
    """What the replicas made of a batch. Pictures are on the scale of their role; B examples, in order.

    Attributes:
      shown: the inputs for display, uint8 [B, H, W, C].
      inputs: the inputs on the scale of the targets, [B, H, W, C] by role; empty where they are not alike.
      translations: by direction, translations and the real images of that domain.
      reconstructions: by name, reconstructions and what they should be.
      is_finite: uint8 [B], 0 or 1: whether all that the networks made of an example is finite.
      names: uint8 [B, 512], padded with zeros; [B, 0] if examples have no names.
    """

    shown: tf.Tensor
    inputs: Mapping[str, tf.Tensor]
    translations: Mapping[str, Pair]
    reconstructions: Mapping[str, Pair]
    is_finite: tf.Tensor
    names: tf.Tensor

    def decoded_names(self) -> list[str]:
        """The names of the examples; empty texts if they have none."""
        return decoded_names(self.names)


class SplitTranslator:
    """Translates whole splits with the networks of a task, sharded over the replicas.

    Args:
      task: its `translate`, `translate_back` and `reconstructions` make the images.
      devices: of the run.
      data: whose splits are translated.
      networks: by name.
      dropout: whether `models.networks.dropout` is active, with masks that depend only on the position of an
        example in the split.

    Attributes:
      scales: of the pictures, by role.
    """

    def __init__(
        self,
        *,
        task: Task,
        devices: Devices,
        data: TrainingData,
        networks: Mapping[str, keras.Model],
        dropout: bool = False,
    ):
        self._task = task
        self._devices = devices
        self._data = data
        self._networks = networks
        self._dropout = dropout
        self.scales = {role: PictureScale.of(data, role) for role in (INPUT, TARGET)}

    def scale_of_reconstruction(self, name: str) -> PictureScale:
        """See `Task.reconstructions`."""
        return self.scales[_role_of(name)]

    def batches(self, split: str) -> Iterator[TranslatedBatch]:
        """Yields the batches of a split, in order.

        Raises:
          NonFiniteOutputError: names the first example for which a network's output is not finite.
        """
        done = 0
        for batch in split_batches(self._devices, self._data, split):
            translated = self._translate(batch)
            check_finite(np.asarray(translated.is_finite), split=split, done=done)
            yield self._without_repeated(split, translated, done)
            done += int(translated.is_finite.shape[0])

    def _without_repeated(self, split: str, batch: TranslatedBatch, done: int) -> TranslatedBatch:
        """Leaves out images that count already, as the smaller of two unpaired domains begins again.

        Args:
          split: that is translated.
          batch: of the split.
          done: examples before the batch.
        """
        source = unwrapped(self._data)
        if self._data.is_paired or not hasattr(source, "role_examples"):
            return batch
        left = {role: max(0, count - done) for role, count in source.role_examples(split).items()}
        made_from = {FORWARD: (INPUT, TARGET), BACK: (TARGET, INPUT)}
        return batch._replace(
            translations={
                way: (made[: left[made_from[way][0]]], real[: left[made_from[way][1]]])
                for way, (made, real) in batch.translations.items()
            },
            reconstructions={
                name: (made[: left[_role_of(name)]], real[: left[_role_of(name)]])
                for name, (made, real) in batch.reconstructions.items()
            },
        )

    @tf.function(autograph=False, reduce_retracing=True)
    def _translate(self, batch: Mapping[str, tf.Tensor]) -> TranslatedBatch:
        per_replica = self._devices.strategy.run(
            tf.autograph.experimental.do_not_convert(self._translate_replica), args=(batch,)
        )
        return tf.nest.map_structure(lambda x: gather_rows(self._devices, x), per_replica)

    def _translate_replica(self, batch: Mapping[str, tf.Tensor]) -> TranslatedBatch:
        padded, rows, names, keys = replica_batch(batch)
        inputs = self._task.input_picture(padded)
        with set_dropout_keys(keys if self._dropout else None):
            translations = {FORWARD: (self._task.translate(self._networks, padded), padded[TARGET])}
            if self._task.translates_back:
                translations[BACK] = (self._task.translate_back(self._networks, padded), padded[INPUT])
            reconstructions = dict(self._task.reconstructions(self._networks, padded))
        is_finite = tf.ones([tf.shape(padded[INPUT])[0]], tf.bool)
        for images, _ in (*translations.values(), *reconstructions.values()):
            # Before they become whole numbers, which hide NaN.
            is_finite &= tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])  # [B]

        def convert(images: Pair, scale: PictureScale) -> Pair:
            made, real = (scale.convert(self._data, x[:rows]) for x in images)
            return made, real

        scales = {FORWARD: self.scales[TARGET], BACK: self.scales[INPUT]}
        return TranslatedBatch(
            shown=to_picture(self._data, inputs[:rows], role=INPUT),
            inputs=self._inputs_as_targets(inputs[:rows], padded[TARGET]),
            translations={way: convert(images, scales[way]) for way, images in translations.items()},
            reconstructions={
                name: convert(images, self.scale_of_reconstruction(name))
                for name, images in reconstructions.items()
            },
            is_finite=tf.cast(is_finite[:rows], tf.uint8),
            names=names,
        )

    def _inputs_as_targets(self, inputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        """The inputs on the scale of the targets; nothing where they are not pictures like these."""
        scale = self.scales[TARGET]
        if INPUT in getattr(self._data, "one_hot", {}):
            if scale != PictureScale():
                return {}
            pictures = to_picture(self._data, inputs, role=INPUT)
        else:
            pictures = scale.convert(self._data, inputs)
        return {INPUT: pictures} if pictures.shape[-1] == targets.shape[-1] else {}


def _role_of(reconstruction: str) -> str:
    """The role whose images a reconstruction makes; see `Task.reconstructions`."""
    return INPUT if reconstruction.endswith(f"_{INPUT}") else TARGET
