"""The task contract: what defines a GAN, independent of how it is trained.

A task names its networks, its optimizers and an ordered table of phases. In each step the engine draws a new
global batch and goes through the table from top to bottom:

    outputs = task.forward(step)                        # once per step, recorded
    for phase in task.phases():                         # the order of the table is the order of updates
        if phase is due:                                # every k-th step
            terms = phase.loss(step)                    # {"l1": [B], ...}, per example
            gradients of  sum(terms) / global batch     # for the networks in phase.updates
            one all-reduce (SUM), check that all is finite, apply, average (EMA)

A phase that updates a network which `forward` used differentiates through that forward pass; any other phase
sees the outputs as constants. Where a batch does not fit into memory, each phase processes it in
micro-batches, and everything below holds for one of them. `forward` may then be called more than once per
step, so it must not assign state, and each of its outputs has one row per example. Nothing here depends on
the number of replicas, on the batch size or on the strategy: a task never divides by a batch size and never
reduces over examples.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least


@runtime_checkable
class MetricSchedule(Protocol):
    """A learning-rate schedule by evaluations instead of by position.

    Its state is floats by name, kept in checkpoints; "factor" is the factor on the learning rate.
    """

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""

    def observe(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after one evaluation with these metrics, by name."""


class InitialWeights(Protocol):
    """Sets the weights of a new run, in place of random ones."""

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        """Sets weights of some of the task's networks.

        Raises:
          ConfigurationError: they do not fit.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Settings of one Adam optimizer (Kingma and Ba, arXiv 1412.6980).

    Attributes:
      learning_rate: the learning rate before the schedule and the batch-size rule.
      schedule: maps (examples drawn, float64 scalar; examples per epoch, int) to a factor on the
        learning rate, or is a `MetricSchedule`; None keeps it constant. See `engine.schedules`.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      epsilon_mode: "pytorch" adds epsilon to the bias-corrected root, "keras" to the uncorrected one.
      weight_decay: decoupled (AdamW: Loshchilov and Hutter, arXiv 1711.05101): before the update every
        trainable variable, biases included, is reduced by learning rate * weight_decay of itself; 0 is plain
        Adam.
      clip_norm: largest Euclidean norm of a phase's gradient, over all its networks and the whole global
        batch; larger gradients are scaled down to it. None clips nothing.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    learning_rate: float = 2e-4
    schedule: Callable[[tf.Tensor, int], tf.Tensor] | MetricSchedule | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_mode: str = "pytorch"
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon_mode not in ("pytorch", "keras"):
            raise ConfigurationError(
                f"Adam.epsilon_mode = {self.epsilon_mode!r}: unknown; use 'pytorch' or 'keras'"
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigurationError(
                f"Adam betas {self.beta1}, {self.beta2}: each must lie in [0, 1); correct them"
            )
        check_at_least(
            0,
            of="Adam",
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epsilon=self.epsilon,
        )
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ConfigurationError(
                f"Adam.clip_norm = {self.clip_norm}: must be above 0 and finite; None clips nothing"
            )


@dataclasses.dataclass(frozen=True)
class Term:
    """A loss term with gradients for only some of the networks that its phase updates.

    Attributes:
      value: per example, [B], or a scalar that does not depend on the batch.
      reaches: names of those networks; the term has no gradient for the phase's other networks.
    """

    value: tf.Tensor
    reaches: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One row of the phases table.

    Attributes:
      name: in log keys, `loss/<name>/<term>`.
      loss: maps a `Step` to named terms, each [B] (one value per example), a scalar, or a `Term`. The terms
        are summed and logged as they are: the loss itself multiplies by weights.
      updates: names of the networks whose trainable variables it updates.
      optimizer: name of an optimizer of the task; phases may share one.
      every: due in the steps k - 1, 2k - 1, ... counted from 0. With `every=n` on the generator's phase, n
        critic updates come before each generator update.
      ema_decay: decay of an exponential moving average of the networks it updates, which evaluation uses;
        None keeps no average.
    """

    name: str
    loss: Callable[[Step], Mapping[str, tf.Tensor | Term]]
    updates: tuple[str, ...]
    optimizer: str
    every: int = 1
    ema_decay: float | None = None

    def is_due(self, step: int) -> bool:
        """Whether it runs in this step, counted from 0."""
        return step % self.every == self.every - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeds:
    """Randomness of one step that does not depend on replicas, micro-batches or restarts.

    Attributes:
      key: int32 [2], the same on every replica, new in every step.
      global_batch: int32 scalar, examples of the whole step.
      own: takes this replica's rows of a tensor [global batch, ...].
    """

    key: tf.Tensor
    global_batch: tf.Tensor
    own: Callable[[tf.Tensor], tf.Tensor]

    def named(self, name: str) -> tf.Tensor:
        """An int32 [2] seed for the stateless operations of `tf.random`, the same in the whole step."""
        return tf.random.experimental.stateless_fold_in(self.key, zlib.crc32(name.encode()) & 0x7FFFFFFF)

    def normal(self, name: str, shape: tuple[int, ...]) -> tf.Tensor:
        """Standard normal noise, different for each example: [B, *shape], in Keras's floatx."""
        drawn = tf.random.stateless_normal([self.global_batch, *shape], self.named(name))
        return tf.cast(self.own(drawn), keras.config.floatx())  # [B, *shape]

    def uniform(self, name: str, shape: tuple[int, ...]) -> tf.Tensor:
        """Uniform noise in [0, 1), different for each example: [B, *shape], in Keras's floatx."""
        drawn = tf.random.stateless_uniform([self.global_batch, *shape], self.named(name))
        return tf.cast(self.own(drawn), keras.config.floatx())  # [B, *shape]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What a task sees of one step, on one replica with B examples.

    Attributes:
      networks: by name, Keras models; call them with `training=True`.
      batch: features from the data set, each [B, ...]; images in [-1, 1], in Keras's floatx.
      outputs: what `forward` returned (empty inside `forward` itself).
      state: the task's own variables, equal on every replica and kept in checkpoints. Assign them in losses,
        not in `forward`, and only values that are equal on every replica: functions of `gather(...)`, which
        may gather draws from `seeds` too. Micro-batches come in example order.
      step: int64 scalar, steps done before this one.
      examples: int64 scalar, examples drawn before this step.
      seeds: randomness of this step.
      gather: [B, ...] of every replica -> [examples, ...] in example order, equal on all replicas; the
        examples of the global batch, or of the micro-batch.
      own: [examples, ...] -> this replica's rows [B, ...]; undoes `gather`.
    """

    networks: Mapping[str, keras.Model]
    batch: Mapping[str, tf.Tensor]
    outputs: Mapping[str, Any]
    state: Mapping[str, tf.Variable]
    step: tf.Tensor
    examples: tf.Tensor
    seeds: Seeds
    gather: Callable[[tf.Tensor], tf.Tensor]
    own: Callable[[tf.Tensor], tf.Tensor]


class Task(abc.ABC):
    """Networks and how they learn. Subclasses hold settings only, no variables.

    Attributes:
      optimizers: settings of each optimizer by name; set it in `__init__`.
      side_inputs: names of the features that `translate` takes from a batch beside "input".
      colour_spaces: those of `data.imaging.COLOUR_SPACES` that it can learn from; None for any. Its inputs
        and outputs with 3 channels are in the colour space of the data.
    """

    optimizers: Mapping[str, Adam]
    colour_spaces: tuple[str, ...] | None = None
    side_inputs: tuple[str, ...] = ()

    @abc.abstractmethod
    def networks(self, example: Mapping[str, tf.TensorSpec]) -> Mapping[str, keras.Model]:
        """Builds the networks, by name.

        Args:
          example: shapes of the features of one example: images [H, W, C], without a batch axis.

        Raises:
          ConfigurationError: a network cannot take that size or number of channels.
        """

    def check_translation(self, example: Mapping[str, tf.TensorSpec]) -> None:
        """Checks that `translate` takes such examples.

        By default it asks `networks`, though discriminators and losses may need larger images.

        Raises:
          ConfigurationError: it does not.
        """
        self.networks(example)

    @abc.abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The table of phases, in the order of updates."""

    def state(self, example: Mapping[str, tf.TensorSpec]) -> Mapping[str, tf.Variable]:
        """Builds the task's variables outside its networks, such as an image pool; by default none."""
        del example
        return {}

    def forward(self, step: Step) -> Mapping[str, Any]:
        """Computes what several phases need, once per step; by default nothing."""
        del step
        return {}

    @abc.abstractmethod
    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Translates a batch outside training: to float [B, H, W, C] in [-1, 1]."""

    def reconstructions(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> Mapping[str, tuple[tf.Tensor, tf.Tensor]]:
        """What evaluation measures beside the translation: name -> (image, its ground truth).

        Each [B, H, W, C] in [-1, 1]. By default nothing.
        """
        del networks, batch
        return {}

    def input_picture(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The input of `translate` as an image, to be shown beside the output: [B, H, W, C] in [-1, 1]."""
        return batch["input"]

    def preview(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> Mapping[str, tf.Tensor]:
        """Columns of the sample grid, each [B, H, W, C] in [-1, 1], from left to right."""
        return {
            "input": self.input_picture(batch),
            "output": self.translate(networks, batch),
            "target": batch["target"],
        }


_example_weights: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
    "example_weights", default=None
)


@contextlib.contextmanager
def weighted_examples(weights: tf.Tensor) -> Iterator[None]:
    """While a replica's step is traced, gives `example_weights` the weights of its rows: 0 for padding."""
    token = _example_weights.set(weights)
    try:
        yield
    finally:
        _example_weights.reset(token)


def example_weights() -> tf.Tensor | None:
    """Weights [B] of the rows of this replica's batch, 1 or 0; None outside a training step.

    For layers that couple examples, such as batch norm: a replica without an example computes on one
    padding row, which must not count.
    """
    return _example_weights.get()


def gradient_norm(fn: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
    """Euclidean norm, for each example, of the gradient of a network with respect to its input.

    For losses such as WGAN-GP and R1; the result can itself be differentiated.

    Args:
      fn: maps inputs to outputs [B, ...]; each row depends on its own input row only.
      inputs: [B, ...].

    Returns:
      [B], not below 1e-8 (where the derivative of the root is infinite).
    """
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = fn(inputs)
    gradients = tape.gradient(outputs, inputs)  # [B, ...], the sum over outputs keeps rows apart
    if gradients.dtype.size < 4:
        gradients = tf.cast(gradients, tf.float32)  # squares of small numbers would be 0
    squares = tf.reduce_sum(tf.square(gradients), axis=tuple(range(1, inputs.shape.rank)))  # [B]
    return tf.sqrt(tf.maximum(squares, 1e-16))
