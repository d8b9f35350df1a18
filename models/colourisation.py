"""Colourisation: pix2pix from how light a picture is to its colours (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from data import imaging
from engine.task import Step
from models.pix2pix import Pix2Pix


class Colourisation(Pix2Pix):
    """A generator of the two colour channels from the first, and a discriminator of all three.

    Data gives coloured pictures as input and target, in "lab" or in luma and chroma
    (`ImageDataset.colour_space`). Of an input only channel 0 is looked at, of a target only channels 1 and
    2; the
    adversarial term, L1 and all else are those of `Pix2Pix`, whose settings these are. With single images
    (`data.single`) in "lab" it is the reference's colorization model: L* / 50 - 1 to a* / 110 and b* / 110.
    """

    colour_spaces = tuple(space for space in imaging.COLOUR_SPACES if space != "rgb")

    def networks(self, example):
        height, width, _ = example["input"].shape
        specs = {
            role: tf.TensorSpec([height, width, channels], example[role].dtype)
            for role, channels in (("input", 1), ("target", 2))
        }
        return super().networks({**example, **specs})

    def phases(self):
        return tuple(dataclasses.replace(phase, loss=_of_channels(phase.loss)) for phase in super().phases())

    def forward(self, step: Step):
        return _of_channels(super().forward)(step)

    def translate(self, networks, batch):
        """The input's lightness with the colours made for it: [B, H, W, 3]."""
        batch = _channels(batch)
        return tf.concat([batch["input"], super().translate(networks, batch)], axis=-1)

    def input_picture(self, batch):
        """The input without its colours, which are 0 in all grey pictures."""
        return tf.pad(_channels(batch)["input"], [[0, 0], [0, 0], [0, 0], [0, 2]])  # [B, H, W, 3]


def _channels(batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
    """The batch with an input [B, H, W, 1] and, where there is one, a target [B, H, W, 2]."""
    parts = {"input": slice(0, 1), "target": slice(1, 3)}
    return {name: x[..., parts[name]] if name in parts else x for name, x in batch.items()}


def _of_channels(function: Callable) -> Callable:
    """A function of pix2pix's steps, for steps of three-channel pictures."""
    return lambda step: function(dataclasses.replace(step, batch=_channels(step.batch)))
