"""The task contract: what defines a GAN, independent of how it is trained.

A task defines its networks, its optimizers and an ordered table of phases. In each step the engine draws a
new global batch and goes through the table from top to bottom:

    outputs = task.forward(step)                        # once per step, recorded
    for phase in task.phases():                         # updates happen in this order
        if phase is due:                                # every k-th step
            terms = phase.loss(step)                    # {"l1": [B], ...}, per example
            gradients of  sum(terms) / global batch     # for the networks in phase.updates
            one all-reduce (SUM), check that all is finite, apply, average (EMA)

A phase that updates a network which `forward` used differentiates through that forward pass; for any other
phase the outputs are constants. If a batch does not fit into memory, each phase processes it in
micro-batches; everything below then holds for one micro-batch. `forward` may be called more than once per
step, so it must not assign state, and each of its outputs has one row per example. Nothing here depends on
the number of replicas, on the batch size or on the strategy: a task never divides by a batch size and never
reduces over examples.
"""

from __future__ import annotations

import abc
import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

# Gin files and tasks name Adam as engine.task.Adam.
from engine.optimizers import Adam as Adam
from engine.optimizers import Optimizer

LATENT_CODE = "latent_code"
"""Key of the latent codes [B, Z] in a batch for `Task.translate`."""


class InitialWeights(Protocol):
    """Sets weights of a new run, in place of random ones."""

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        """Sets weights of some of the task's networks.

        Args:
          networks: all networks of the task by name; changed in place.

        Raises:
          ConfigurationError: the weights do not fit the networks.
        """


@dataclasses.dataclass(frozen=True)
class Term:
    """A loss term with gradients for only some of the networks that its phase updates.

    Attributes:
      value: [B], one value per example, or a scalar that does not depend on the batch.
      reaches: names of those networks; the term has no gradient for the phase's other networks.
    """

    value: tf.Tensor
    reaches: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One row of the phases table.

    Attributes:
      name: name in log keys, `loss/<name>/<term>`.
      loss: maps a `Step` to named terms, each [B] (one value per example), a scalar, or a `Term`. The terms
        are summed and logged as they are: the loss itself multiplies by weights.
      updates: names of the networks whose trainable variables it updates.
      optimizer: name of an optimizer of the task; phases may share one.
      every: due in the steps k - 1, 2k - 1, ... counted from 0. With `every=n` on the generator's phase, n
        critic updates come before each generator update.
      ema_decay: decay per update of an exponential moving average of the networks it updates, which
        evaluation uses; None keeps no average.
      reconstruction: the terms of `loss` that need no discriminator. Before `Experiment.adversarial_start`
        they are the whole loss, in every step, and phases without them wait. None: the phase waits.
    """

    name: str
    loss: Callable[[Step], Mapping[str, tf.Tensor | Term]]
    updates: tuple[str, ...]
    optimizer: str
    every: int = 1
    ema_decay: float | None = None
    reconstruction: Callable[[Step], Mapping[str, tf.Tensor | Term]] | None = None

    def is_due(self, step: int) -> bool:
        """Returns whether the phase is due.

        Args:
          step: number of the step, counted from 0.
        """
        return step % self.every == self.every - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeds:
    """Randomness of one step that does not depend on replicas, micro-batches or restarts.

    Attributes:
      key: int32 [2], the same on every replica, new in every step.
      global_batch: int32 scalar, number of examples of the whole step.
      own: maps a tensor [global batch, ...] to this replica's rows of it, [B, ...].
    """

    key: tf.Tensor
    global_batch: tf.Tensor
    own: Callable[[tf.Tensor], tf.Tensor]

    def named(self, name: str) -> tf.Tensor:
        """Returns a seed for the stateless operations of `tf.random`.

        Args:
          name: different names give different seeds.

        Returns:
          int32 [2], the same on all replicas and in all micro-batches of the step.
        """
        return tf.random.experimental.stateless_fold_in(self.key, zlib.crc32(name.encode()) & 0x7FFFFFFF)

    def normal(self, name: str, shape: tuple[int, ...]) -> tf.Tensor:
        """Draws standard normal noise, different for each example.

        Args:
          name: different names give different noise.
          shape: of the noise for one example.

        Returns:
          [B, *shape], in Keras's floatx.
        """
        drawn = tf.random.stateless_normal([self.global_batch, *shape], self.named(name))
        return tf.cast(self.own(drawn), keras.config.floatx())  # [B, *shape]

    def uniform(self, name: str, shape: tuple[int, ...]) -> tf.Tensor:
        """Draws uniform noise in [0, 1), different for each example.

        Args:
          name: different names give different noise.
          shape: of the noise for one example.

        Returns:
          [B, *shape], in Keras's floatx.
        """
        drawn = tf.random.stateless_uniform([self.global_batch, *shape], self.named(name))
        return tf.cast(self.own(drawn), keras.config.floatx())  # [B, *shape]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What a task sees of one step, on one replica with B examples.

    Attributes:
      networks: Keras models by name; call them with `training=True`.
      frozen_networks: those of `Task.frozen_networks`, by name.
      batch: features of the data set by name, each [B, ...]; images in [-1, 1], in Keras's floatx.
      outputs: the result of `forward`; empty inside `forward` itself.
      state: the task's own variables, equal on all replicas and stored in checkpoints. Assign them in losses,
        not in `forward`, and only values that are equal on all replicas: functions of `gather(...)`, which
        can gather noise from `seeds` too. Micro-batches come in example order.
      step: int64 scalar, number of steps before this one.
      examples: int64 scalar, number of examples drawn before this step.
      seeds: randomness of this step.
      gather: maps [B, ...] of each replica to [examples, ...] in example order, equal on all replicas; these
        are the examples of the global batch, or of the micro-batch. Each call is a collective: give it a
        nested structure of tensors of one dtype rather than calling it several times.
      own: maps [examples, ...] to this replica's rows [B, ...]; the inverse of `gather`.
      label_roles: names of the features whose values are classes: nothing may interpolate or recolour them.
    """

    networks: Mapping[str, keras.Model]
    batch: Mapping[str, tf.Tensor]
    outputs: Mapping[str, Any]
    state: Mapping[str, tf.Variable]
    step: tf.Tensor
    examples: tf.Tensor
    seeds: Seeds
    gather: Callable[[Any], Any]
    own: Callable[[tf.Tensor], tf.Tensor]
    frozen_networks: Mapping[str, keras.Model] = dataclasses.field(default_factory=dict)
    label_roles: frozenset[str] = frozenset()


class Task(abc.ABC):
    """Networks and how they learn. Subclasses hold settings only, no variables.

    Attributes:
      optimizers: settings of each optimizer by name; set it in `__init__`.
      side_inputs: names of the features that `translate` uses beside "input".
      colour_spaces: names in `data.imaging.COLOUR_SPACES` of the colour spaces that it can learn from; None
        for any. Its inputs and outputs with 3 channels are in the colour space of the data.
      latent_size: numbers of the code that selects one of many outputs for an input; 0 if there is only one.
        `translate` then takes codes as batch[LATENT_CODE], [B, latent_size], if they are there.
      translates_back: whether `translate_back` translates targets to inputs.
      target_kind: None if targets are images; "classes" or "numbers" if they are labels [K], which `predict`
        predicts; see `engine.training_data.HasTargetNames`. Such a task has nothing to `translate`.
    """

    optimizers: Mapping[str, Optimizer]
    colour_spaces: tuple[str, ...] | None = None
    side_inputs: tuple[str, ...] = ()
    latent_size: int = 0
    translates_back: bool = False
    target_kind: str | None = None

    @abc.abstractmethod
    def networks(self, example: Mapping[str, tf.TensorSpec]) -> Mapping[str, keras.Model]:
        """Builds the networks.

        Args:
          example: shapes of the features of one example: images [H, W, C], without a batch axis.

        Returns:
          The networks by name; the names are those in checkpoints.

        Raises:
          ConfigurationError: a network cannot take that size or number of channels.
        """

    def frozen_networks(self, example: Mapping[str, tf.TensorSpec]) -> Mapping[str, keras.Model]:
        """Builds the networks that losses use and that never change; by default none.

        They are in no checkpoint. The engine builds them before `networks`.

        Args:
          example: shapes of the features of one example, as in `networks`.

        Returns:
          The networks by name: `Step.frozen_networks`.

        Raises:
          ConfigurationError: a network cannot take that size or number of channels.
        """
        del example
        return {}

    def check_translation(self, example: Mapping[str, tf.TensorSpec]) -> None:
        """Checks that `translate` can take such examples.

        By default it builds all networks. Override it if discriminators or losses need larger images than
        `translate`.

        Args:
          example: shapes of the features of one example, as in `networks`.

        Raises:
          ConfigurationError: `translate` cannot take them.
        """
        self.networks(example)

    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """Returns the table of phases, in the order of their updates."""

    def set_initial_weights(  # noqa: B027, an empty default
        self,
        networks: Mapping[str, keras.Model],
        *,
        target_statistics: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        """Sets weights of a new run that do not come from its seed; by default none.

        A run that is continued has them in its checkpoints. The weights that the experiment names follow.

        Args:
          networks: the task's networks by name; changed in place.
          target_statistics: mean and standard deviation of the training targets, float64 [K] each; None if
            targets are no numbers.

        Raises:
          ConfigurationError: there are no such weights, or they do not fit.
        """

    def state(self, example: Mapping[str, tf.TensorSpec]) -> Mapping[str, tf.Variable]:
        """Builds the task's variables outside its networks, such as an image pool; by default none.

        Args:
          example: shapes of the features of one example, as in `networks`.

        Returns:
          The variables by name; the names are those in checkpoints.
        """
        del example
        return {}

    def forward(self, step: Step) -> Mapping[str, Any]:
        """Computes what several phases need; by default nothing.

        Args:
          step: the current step, with empty `outputs`.

        Returns:
          The `outputs` of the step, by name.
        """
        del step
        return {}

    @abc.abstractmethod
    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Translates a batch outside training.

        Args:
          networks: the task's networks, or their moving averages.
          batch: features by name, each [B, ...]; "input" and those in `side_inputs`.

        Returns:
          Images [B, H, W, C] in [-1, 1], float.
        """

    def predict(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Predicts labels outside training; for tasks with a `target_kind`.

        Args:
          networks: as in `translate`.
          batch: as in `translate`.

        Returns:
          [B, K]: logits of the classes, or numbers in the units of the targets.
        """
        raise NotImplementedError(f"{type(self).__name__}: predicts no labels")

    def translate_back(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """Translates targets to inputs outside training; for tasks with `translates_back`.

        Args:
          networks: as in `translate`.
          batch: features by name, each [B, ...]; "target".

        Returns:
          Images [B, H, W, C] in [-1, 1], float.
        """
        raise NotImplementedError(f"{type(self).__name__}: has no network from targets to inputs")

    def encode(self, networks: Mapping[str, keras.Model], targets: tf.Tensor) -> tf.Tensor:
        """Returns the latent codes of targets outside training; for tasks with a `latent_size`.

        Args:
          networks: as in `translate`.
          targets: [B, H, W, C] in [-1, 1].

        Returns:
          [B, latent_size].
        """
        raise NotImplementedError(f"{type(self).__name__}: has no latent codes")

    def reconstructions(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> Mapping[str, tuple[tf.Tensor, tf.Tensor]]:
        """Computes images that evaluation measures in addition to the translation; by default none.

        Args:
          networks: the task's networks, or their moving averages.
          batch: features by name, each [B, ...].

        Returns:
          Name -> (images, their ground truth), each [B, H, W, C] in [-1, 1]. They have the values of targets,
          or of inputs if the name ends with "_input".
        """
        del networks, batch
        return {}

    def input_picture(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the inputs as images to show beside the outputs: [B, H, W, C] in [-1, 1].

        Args:
          batch: features by name, each [B, ...].
        """
        return batch["input"]

    def preview(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> Mapping[str, tf.Tensor]:
        """Computes the columns of the sample grid.

        Args:
          networks: the task's networks, or their moving averages.
          batch: features by name, each [B, ...].

        Returns:
          Name -> images [B, H, W, C] in [-1, 1], from left to right. "input" is what `input_picture` returns.
        """
        return {
            "input": self.input_picture(batch),
            "output": self.translate(networks, batch),
            "target": batch["target"],
        }


def gradient_norm(fn: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
    """Computes the norm of a network's gradient with respect to its input, for each example.

    For losses such as WGAN-GP and R1; the result is differentiable.

    Args:
      fn: maps inputs to outputs [B, ...]; each row depends on its own input row only.
      inputs: [B, ...].

    Returns:
      Euclidean norms [B], at least 1e-8 (the derivative of the root is infinite at 0).
    """
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = fn(inputs)
    gradients = tape.gradient(outputs, inputs)  # [B, ...]; of the sum of all outputs, which keeps rows apart
    if gradients.dtype.size < 4:
        gradients = tf.cast(gradients, tf.float32)  # squares of small float16 numbers would be 0
    squares = tf.reduce_sum(tf.square(gradients), axis=tuple(range(1, inputs.shape.rank)))  # [B]
    return tf.sqrt(tf.maximum(squares, 1e-16))
