"""What an export computes: from pictures in RGB, and what the task takes beside them, to pictures in RGB."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from data.description import DataDescription
from data.roles import INPUT, SIDE_MAP, SIDE_VECTOR, TARGET
from engine.errors import ConfigurationError
from engine.input_pipeline.pictures import to_network, to_rgb
from engine.pictures.role_format import RoleFormat, role_format
from engine.task import LATENT_CODE, Task

IMAGE, OUTPUT = "image", "output"
"""Names of the picture and of the result, in all formats."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translation:
    """How the networks of a run translate pictures.

    Attributes:
      task: of the run.
      data: that the networks were trained on.
      networks: by name.
      source: the role that pictures take the place of: "input", or "target" to translate back.
    """

    task: Task
    data: DataDescription
    networks: Mapping[str, Any]
    source: str = INPUT

    @property
    def result(self) -> str:
        """The role that the results take the place of."""
        return TARGET if self.source == INPUT else INPUT

    @property
    def input_format(self) -> RoleFormat:
        """How the networks take pictures."""
        return role_format(self.data, self.source)

    @property
    def output_format(self) -> RoleFormat:
        """How the networks make them."""
        return role_format(self.data, self.result)

    @property
    def map_format(self) -> RoleFormat | None:
        """How the networks take side maps; None if they take none."""
        return role_format(self.data, SIDE_MAP) if SIDE_MAP in self._side_inputs else None

    @property
    def features(self) -> dict[str, tf.TensorSpec]:
        """What `rgb` takes, by name: float32, of any batch, height and width."""
        specs = {IMAGE: tf.TensorSpec([None, None, None, self.input_format.channels], tf.float32, IMAGE)}
        if self.map_format is not None:
            specs[SIDE_MAP] = tf.TensorSpec(
                [None, None, None, self.map_format.channels], tf.float32, SIDE_MAP
            )
        if SIDE_VECTOR in self._side_inputs:
            specs[SIDE_VECTOR] = tf.TensorSpec(
                [None, *self.data.shapes[SIDE_VECTOR]], tf.float32, SIDE_VECTOR
            )
        if self.task.latent_size and self.source == INPUT:
            specs[LATENT_CODE] = tf.TensorSpec([None, self.task.latent_size], tf.float32, LATENT_CODE)
        return specs

    @property
    def _side_inputs(self) -> tuple[str, ...]:
        return self.task.side_inputs if self.source == INPUT else ()

    def with_networks(self, networks: Mapping[str, Any]) -> Translation:
        """The same with other networks."""
        return dataclasses.replace(self, networks=networks)

    def rgb(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Translates a batch.

        Args:
          features: those of `features`, by name; pictures and maps in [-1, 1], pictures in RGB.

        Returns:
          float32 [B, H', W', C] in about [-1, 1], 3 channels in RGB; colours outside RGB are not clipped.
        """
        batch = {self.source: to_network(self.data, features[IMAGE], role=self.source)}
        if SIDE_MAP in features:
            batch[SIDE_MAP] = to_network(self.data, features[SIDE_MAP], role=SIDE_MAP)
        batch |= {name: features[name] for name in (SIDE_VECTOR, LATENT_CODE) if name in features}
        batch = {name: tf.cast(values, keras.config.floatx()) for name, values in batch.items()}
        translate = self.task.translate if self.source == INPUT else self.task.translate_back
        return tf.cast(to_rgb(self.data, translate(self.networks, batch)), tf.float32)


def check_side_inputs(task: Task) -> None:
    """Raises ConfigurationError if the task takes features beside pictures that an export does not know."""
    unknown = [name for name in task.side_inputs if name not in (SIDE_VECTOR, SIDE_MAP)]
    if unknown:
        raise ConfigurationError(
            f"the run's networks take {unknown[0]!r} with each picture, which cannot be exported; only "
            f"{SIDE_VECTOR!r} and {SIDE_MAP!r} can"
        )


class RecordedNetwork:
    """A network that keeps what it is called with, to compare another form of it.

    Args:
      network: is called.

    Attributes:
      network: likewise.
      calls: (inputs, outputs) of each call.
      is_used: whether the task has used it in any way.
    """

    def __init__(self, network: keras.Model):
        self.network = network
        self.calls: list[tuple[Any, Any]] = []
        self.is_used = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Calls the network."""
        self.is_used = True
        outputs = self.network(inputs, **kwargs)
        self.calls.append((inputs, outputs))
        return outputs

    def __getattr__(self, name: str) -> Any:
        """Whatever else a task uses is that of the network."""
        self.is_used = True
        return getattr(self.network, name)
