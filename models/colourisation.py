"""Colourisation: pix2pix from the lightness of an image to its colours (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar

import keras
import tensorflow as tf

from data import imaging
from engine.task import Phase, Step
from models.pix2pix import Pix2Pix

_T = TypeVar("_T")


class Colourisation(Pix2Pix):
    """A generator of the two colour channels from the first channel, and a discriminator of all three.

    The data has colour images as inputs and targets, in "lab" or in a space of luma and chroma
    (`ImageDataset.colour_space`). The task uses only channel 0 of an input, and channels 1 and 2 of a target.
    The settings and losses are those of `Pix2Pix`. With single images (`data.single`) in "lab" it is the
    reference's colorization model: L* / 50 - 1 to a* / 110 and b* / 110.
    """

    colour_spaces = tuple(space for space in imaging.COLOUR_SPACES if space != "rgb")

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds `generator` (1 channel to 2) and `discriminator`."""
        return super().networks(_select_channel_shapes(example))

    def frozen_networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds the networks of `fidelity` for targets of 2 channels."""
        return super().frozen_networks(_select_channel_shapes(example))

    def phases(self) -> tuple[Phase, ...]:
        """The phases of pix2pix, on the channels that this task uses."""
        return tuple(
            dataclasses.replace(
                phase,
                loss=_on_channels(phase.loss),
                reconstruction=phase.reconstruction and _on_channels(phase.reconstruction),
            )
            for phase in super().phases()
        )

    def forward(self, step: Step) -> dict[str, tf.Tensor]:
        """Colours the batch: "fake", [B, H, W, 2]."""
        return _on_channels(super().forward)(step)

    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The input's lightness with the generated colours: [B, H, W, 3]."""
        batch = _select_channels(batch)
        return tf.concat([batch["input"], super().translate(networks, batch)], axis=-1)

    def input_picture(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The input without its colours: channels 1 and 2 are 0, as those of a grey image."""
        return tf.pad(_select_channels(batch)["input"], [[0, 0], [0, 0], [0, 0], [0, 2]])  # [B, H, W, 3]


def _select_channel_shapes(example: Mapping[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
    """The shapes of an example with the channels that this task uses."""
    height, width, _ = example["input"].shape
    specs = {
        role: tf.TensorSpec([height, width, channels], example[role].dtype)
        for role, channels in (("input", 1), ("target", 2))
    }
    return {**example, **specs}


def _select_channels(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The batch with an input [B, H, W, 1] and, if it has a target, with a target [B, H, W, 2]."""
    channels = {"input": slice(0, 1), "target": slice(1, 3)}
    return {name: x[..., channels[name]] if name in channels else x for name, x in batch.items()}


def _on_channels(function: Callable[[Step], _T]) -> Callable[[Step], _T]:
    """Makes a function of pix2pix's steps one of steps with three-channel images."""
    return lambda step: function(dataclasses.replace(step, batch=_select_channels(step.batch)))
