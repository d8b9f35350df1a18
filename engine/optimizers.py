"""Settings of the optimizers, and the contracts of the schedules that they follow.

`engine.inner_loop.optimizer_state` makes the updates. How the numbers follow the global batch is in
`engine.batching.scaling_rules`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol, Self, runtime_checkable

import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least

EPSILON_MODES = ("pytorch", "keras")


@runtime_checkable
class MetricSchedule(Protocol):
    """A learning-rate schedule that depends on evaluations instead of the position in the run.

    Its state maps names to floats, and checkpoints store it; "factor" multiplies the learning rate.
    """

    def initial(self) -> dict[str, float]:
        """Returns the state before the first evaluation."""

    def observe(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns the state after an evaluation.

        Args:
          state: the state before it.
          metrics: its results by name.
        """


@runtime_checkable
class RelativeSchedule(Protocol):
    """A learning-rate schedule by position that depends on the length of the run."""

    def for_run(
        self, *, total_examples: int, examples_per_epoch: int
    ) -> Callable[[tf.Tensor, int], tf.Tensor]:
        """Returns the schedule for one run.

        Args:
          total_examples: of the run.
          examples_per_epoch: training examples in one epoch.
        """


@runtime_checkable
class BatchedSchedule(Protocol):
    """A learning-rate schedule by position that also depends on the batch of the step."""

    def factor_of_step(
        self, examples: tf.Tensor, examples_per_epoch: int, global_batch: tf.Tensor
    ) -> tf.Tensor:
        """Returns the factor on the learning rate, float64 scalar.

        Args:
          examples: float64 scalar, drawn before the step.
          examples_per_epoch: training examples in one epoch.
          global_batch: float64 scalar, examples of the step.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What the settings of all optimizers have in common.

    Attributes:
      learning_rate: the learning rate before the schedule and the batch-size rule change it.
      schedule: maps (examples drawn, float64 scalar; examples per epoch, int) to a factor on the
        learning rate, or is a `MetricSchedule`; None keeps it constant. See `engine.schedules`. If it is a
        `RelativeSchedule` too, its `for_run` gives what is called.
      weight_decay: 0 decays nothing. All trainable variables decay, biases included.
      clip_norm: largest Euclidean norm of a phase's gradient, over all its networks and the whole global
        batch; larger gradients are scaled down to it. None does not clip.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    learning_rate: float = 2e-4
    schedule: Callable[[tf.Tensor, int], tf.Tensor] | MetricSchedule | None = None
    weight_decay: float = 0.0
    clip_norm: float | None = None

    first_decay: ClassVar[str | None] = None
    """Name of the setting that is the decay per update of the first moment, or of the momentum."""
    second_decay: ClassVar[str | None] = None
    """Likewise of the second moment."""
    keeps_first_decay: ClassVar[bool] = False
    """Whether no batch-size rule changes the first one."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name in self.decays:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{kind}.{name} = {getattr(self, name)}: must lie in [0, 1); correct it"
                )
        check_at_least(0, of=kind, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ConfigurationError(
                f"{kind}.clip_norm = {self.clip_norm}: must be above 0 and finite; set None for no clipping"
            )

    @property
    def decays(self) -> tuple[str, ...]:
        """Names of the settings that are decays per update."""
        return tuple(name for name in (self.first_decay, self.second_decay) if name)

    def slowed(self, factor: float) -> Self:
        """The settings with which 1 / factor times as many updates move as far and remember as many examples.

        Args:
          factor: at most 1.
        """
        decays = {name: getattr(self, name) ** factor for name in self.decays}
        return dataclasses.replace(self, learning_rate=self.learning_rate * factor, **decays)

    def _check_epsilon(self, epsilon: float, mode: str) -> None:
        kind = type(self).__name__
        check_at_least(0, of=kind, epsilon=epsilon)
        if mode not in EPSILON_MODES:
            raise ConfigurationError(f"{kind}.epsilon_mode = {mode!r}: unknown; use 'pytorch' or 'keras'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Settings of one Adam optimizer (Kingma and Ba, arXiv 1412.6980), or AdamW, or AMSGrad.

    Attributes:
      learning_rate: see `Optimizer`.
      schedule: see `Optimizer`.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      epsilon_mode: "pytorch" adds epsilon to the bias-corrected root, "keras" to the uncorrected one.
      amsgrad: divides by the root of the largest second moment so far (Reddi et al., arXiv 1904.09237).
      weight_decay: decoupled (AdamW: Loshchilov and Hutter, arXiv 1711.05101): before the update, each
        variable is multiplied by 1 - learning rate * weight_decay.
      clip_norm: see `Optimizer`.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    beta1: float = 0.5
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_mode: str = "pytorch"
    amsgrad: bool = False

    first_decay: ClassVar[str | None] = "beta1"
    second_decay: ClassVar[str | None] = "beta2"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_epsilon(self.epsilon, self.epsilon_mode)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Settings of stochastic gradient descent with momentum, as in PyTorch.

    The velocity v becomes momentum * v + gradient, and the update is learning rate * v; with Nesterov's
    momentum (Sutskever et al. 2013, ICML) it is learning rate * (gradient + momentum * v).

    Attributes:
      learning_rate: see `Optimizer`.
      schedule: see `Optimizer`.
      momentum: decay of the velocity; 0 keeps none.
      nesterov: looks ahead.
      weight_decay: of the L2 penalty weight_decay / 2 * |variable|^2, whose gradient is added.
      clip_norm: see `Optimizer`; of the gradient without that penalty.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False

    first_decay: ClassVar[str | None] = "momentum"
    keeps_first_decay: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ConfigurationError("Sgd.nesterov = True: needs a momentum; set Sgd.momentum, such as 0.9")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmsProp(Optimizer):
    """Settings of RMSprop (Tieleman and Hinton 2012), WGAN's optimizer (Arjovsky et al., arXiv 1701.07875).

    Attributes:
      learning_rate: see `Optimizer`; 5e-5 is WGAN's.
      schedule: see `Optimizer`.
      rho: decay of the mean square of the gradients.
      momentum: decay of the velocity, the sum of the scaled gradients; 0 keeps none.
      epsilon: see `epsilon_mode`.
      epsilon_mode: "pytorch" divides by root(mean square) + epsilon, "keras" by root(mean square + epsilon).
        "keras" is one fused kernel, and has the learning rate in its velocity.
      weight_decay: of the L2 penalty weight_decay / 2 * |variable|^2, whose gradient is added.
      clip_norm: see `Optimizer`; of the gradient without that penalty.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    learning_rate: float = 5e-5
    rho: float = 0.99
    momentum: float = 0.0
    epsilon: float = 1e-8
    epsilon_mode: str = "pytorch"

    first_decay: ClassVar[str | None] = "momentum"
    second_decay: ClassVar[str | None] = "rho"
    keeps_first_decay: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_epsilon(self.epsilon, self.epsilon_mode)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """Settings of Lion (Chen et al., arXiv 2302.06675).

    The update is learning rate * sign(beta1 * m + (1 - beta1) * gradient); then m becomes beta2 * m +
    (1 - beta2) * gradient. The authors advise a learning rate 3 to 10 times smaller than Adam's, and a weight
    decay larger by that factor.

    Attributes:
      learning_rate: see `Optimizer`.
      schedule: see `Optimizer`.
      beta1: weight of m in the update.
      beta2: decay of m.
      weight_decay: decoupled: before the update, each variable is multiplied by
        1 - learning rate * weight_decay.
      clip_norm: see `Optimizer`.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    learning_rate: float = 5e-5
    beta1: float = 0.9
    beta2: float = 0.99

    first_decay: ClassVar[str | None] = "beta1"
    second_decay: ClassVar[str | None] = "beta2"
