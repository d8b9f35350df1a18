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
import contextlib
import contextvars
import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import keras
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
    """

    name: str
    loss: Callable[[Step], Mapping[str, tf.Tensor | Term]]
    updates: tuple[str, ...]
    optimizer: str
    every: int = 1
    ema_decay: float | None = None

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
        are the examples of the global batch, or of the micro-batch.
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
    gather: Callable[[tf.Tensor], tf.Tensor]
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
    """

    optimizers: Mapping[str, Optimizer]
    colour_spaces: tuple[str, ...] | None = None
    side_inputs: tuple[str, ...] = ()
    latent_size: int = 0
    translates_back: bool = False

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


_example_weights: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
    "example_weights", default=None
)


@contextlib.contextmanager
def set_example_weights(weights: tf.Tensor | None) -> Iterator[None]:
    """Sets what `example_weights` returns, while a replica's step is traced.

    Args:
      weights: [B], 1 for the rows with an example and 0 for padding; None if no row is padding.
    """
    token = _example_weights.set(weights)
    try:
        yield
    finally:
        _example_weights.reset(token)


def example_weights() -> tf.Tensor | None:
    """Returns the weights of the rows of this replica's batch, for layers that couple examples.

    A replica without an example computes on one padding row, which batch norm, for instance, must not count.

    Returns:
      [B], 1 or 0; None where all rows are examples, as outside training.
    """
    return _example_weights.get()


_dropout_keys: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("dropout_keys", default=None)


@contextlib.contextmanager
def set_dropout_keys(keys: tf.Tensor | None) -> Iterator[None]:
    """Sets what `dropout_keys` returns, while an evaluation is traced.

    Args:
      keys: int32 [B, 2], of the rows of this replica's batch; None if there is no dropout.
    """
    token = _dropout_keys.set(keys)
    try:
        yield
    finally:
        _dropout_keys.reset(token)


def dropout_keys() -> tf.Tensor | None:
    """Returns the random keys of the rows of this replica's batch, for dropout outside training.

    The key of an example does not depend on the other examples of the batch, nor on the number of replicas.

    Returns:
      int32 [B, 2]; None where networks compute without dropout.
    """
    return _dropout_keys.get()


_kept_sums: contextvars.ContextVar[list[list[tf.Tensor]] | None] = contextvars.ContextVar(
    "kept_sums", default=None
)
_reused_sums: contextvars.ContextVar[Iterator[list[tf.Tensor]] | None] = contextvars.ContextVar(
    "reused_sums", default=None
)


@contextlib.contextmanager
def keep_sums() -> Iterator[list[list[tf.Tensor]]]:
    """Lists the sums that `sum_over_replicas` computes meanwhile, for `reuse_sums`."""
    sums: list[list[tf.Tensor]] = []
    token = _kept_sums.set(sums)
    try:
        yield sums
    finally:
        _kept_sums.reset(token)


@contextlib.contextmanager
def reuse_sums(sums: list[list[tf.Tensor]]) -> Iterator[None]:
    """Makes `sum_over_replicas` return these sums, for a computation that is made again.

    Their gradients communicate as ever.
    """
    token = _reused_sums.set(iter(sums))
    try:
        yield
    finally:
        _reused_sums.reset(token)


def sum_over_replicas(values: Any) -> Any:
    """Returns the sums over all replicas, for layers that couple examples (in replica context).

    It is differentiable any number of times. All replicas must call it, in the same order.

    Args:
      values: a tensor, or a nested structure of tensors, of the same shapes on every replica.

    Returns:
      The same structure.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    kept, reused = _kept_sums.get(), _reused_sums.get()

    # `ReplicaContext.all_reduce` searches the graph from its sums back to its inputs. The sums depend on the
    # other replicas too, so every call would search their whole graphs: a CUT with batch norm traces for
    # minutes. The search ends at a stopped gradient.
    @tf.custom_gradient
    def all_reduce(*own: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        if reused is not None:
            sums = next(reused)
        else:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.stop_gradient(x) for x in own])
        if kept is not None:
            kept.append(sums)
        return sums, lambda *gradients: sum_over_replicas(list(gradients))

    return tf.nest.pack_sequence_as(values, all_reduce(*tf.nest.flatten(values)))


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
