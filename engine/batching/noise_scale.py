"""The gradient noise scale of a phase, measured from partial gradients that are summed anyway.

McCandlish et al. 2018 (arXiv 1812.06162): with G the true gradient and Sigma the covariance of the gradient
of one example, noise and signal are equal for a batch of B_simple = tr(Sigma) / |G|^2 examples. The paper
compares the gradients of a small and a big batch. Here the big batch is the global batch, and a small batch
is the examples of one micro-batch on one replica. Small batch i has b_i examples and the mean gradient g_i;
the big batch has B = sum b_i examples in M small batches that are not empty. Each replica holds its part of
the mean gradient, h_i = b_i g_i / B, and after the all-reduce the mean gradient gbar = sum h_i. Since
E|g_i|^2 = |G|^2 + tr(Sigma) / b_i, and likewise for gbar,

    S = sum B^2 |h_i|^2 / b_i = sum b_i |g_i|^2        E S = B |G|^2 + M tr(Sigma)
    T = |gbar|^2                                       E T = |G|^2 + tr(Sigma) / B

    tr(Sigma) = (S - B T) / (M - 1)                    |G|^2 = T - tr(Sigma) / B

without bias, and tr(Sigma) is negative only by rounding (S >= B T, Cauchy and Schwarz). With equal small
batches b = B / M and s = S / B the mean of |g_i|^2, these are (s - T) / (1/b - 1/B) and
(B T - b s) / (B - b): the formulas of McCandlish, appendix A.1.

Examples are assumed to be independent. Effects that couple the examples of a small batch (batch norm) or are
common to them (one dropout seed) do not count as noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError


def small_batch_square_norm(
    gradients: Sequence[tf.Tensor], *, examples: tf.Tensor, global_batch: tf.Tensor | int
) -> tf.Tensor:
    """One small batch's summand of S: B^2 |h|^2 / b, which is b |g|^2.

    Args:
      gradients: h, the small batch's part of the mean gradient over the global batch, before the all-reduce.
      examples: b, examples of the small batch; if 0, the summand is 0.
      global_batch: B.

    Returns:
      float64 scalar. `NoiseScale.update` takes the sum over all small batches of all replicas.
    """
    scale = tf.cast(global_batch, tf.float64) ** 2
    return tf.math.divide_no_nan(scale * _square_norm(gradients), tf.cast(examples, tf.float64))


def two_size_estimate(
    small_batch_square_norms: tf.Tensor,
    small_batches: tf.Tensor,
    big_batch_square_norm: tf.Tensor,
    global_batch: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Unbiased tr(Sigma) of one example and |G|^2 of one step; the module docstring derives them.

    Args:
      small_batch_square_norms: S.
      small_batches: M, small batches that are not empty, at least 2.
      big_batch_square_norm: T.
      global_batch: B.

    Returns:
      tr(Sigma) and |G|^2, float64, of the arguments' common shape. |G|^2 may be negative.
    """
    s, m, t, b = (
        tf.cast(x, tf.float64)
        for x in (small_batch_square_norms, small_batches, big_batch_square_norm, global_batch)
    )
    trace_covariance = (s - b * t) / (m - 1.0)
    return trace_covariance, t - trace_covariance / b


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseScaleValue:
    """The noise scale of one phase; nan before the first estimate.

    Attributes:
      noise_scale: tr(Sigma) / |G|^2, in examples; inf if the estimate of |G|^2 is 0 or negative, because
        noise hides the gradient.
      norm_test_scale: tr(Sigma) / |gbar|^2, in examples, with the batches that were used.
      trace_covariance: tr(Sigma) of the gradient of one example.
      square_gradient: |G|^2.
    """

    noise_scale: float
    norm_test_scale: float
    trace_covariance: float
    square_gradient: float


class NoiseScale:
    """Running averages of tr(Sigma), |G|^2 and |gbar|^2 of one phase.

    The estimates of single steps are noisy and |G|^2 may be negative, so numerator and denominator are
    averaged separately and divided last; a mean of ratios would be biased. tr(Sigma) is that of one example,
    which holds for any batch: the variance of a batch's mean would have to be rescaled by B_old / B_new
    whenever the batch changes. |gbar|^2 depends on the batch, and its average follows a new batch slowly.

    A step of a single small batch (one replica, one micro-batch) has no spread. Then the previous step and
    this one are the two small batches of a big batch of B_previous + B examples; pairs overlap, and the first
    step gives no estimate. The weights changed in between, so tr(Sigma) is too large by
    B_previous B / (B_previous + B) times the squared change of G, which is small at small learning rates.

    Create it under the strategy's scope.

    Args:
      networks: variables by network; `update` gets their gradients.
      smoothing: decay of the averages for each step that gives an estimate, in [0, 1).
      combine_steps: keeps the gradient of the previous step, which needs as much memory as the variables on
        every replica. Needed if a step may be a single small batch.

    Raises:
      ConfigurationError: `smoothing` is outside [0, 1).
    """

    def __init__(
        self,
        networks: Mapping[str, Sequence[keras.Variable]],
        *,
        smoothing: float = 0.99,
        combine_steps: bool = False,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ConfigurationError(
                f"NoiseScale.smoothing = {smoothing!r}: must lie in [0, 1); 0.99 averages about 100 steps"
            )
        self._smoothing = smoothing
        self._sums = {
            name: tf.Variable(0.0, dtype=tf.float64, trainable=False, name=name)
            for name in ("trace_covariance", "square_gradient", "mean_square", "weight")
        }
        self._previous: dict[str, list[tf.Variable]] = {}
        if combine_steps:
            self._previous = {
                name: [
                    tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False, name="previous") for v in values
                ]
                for name, values in networks.items()
            }
            self._previous_batch = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="previous_batch")

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Everything a checkpoint needs, by a stable name."""
        named = dict(self._sums)
        for network, gradients in self._previous.items():
            named |= {f"previous/{network}/{index:03d}": v for index, v in enumerate(gradients)}
        return named | ({"previous_batch": self._previous_batch} if self._previous else {})

    def update(
        self,
        *,
        small_batch_square_norms: tf.Tensor,
        small_batches: tf.Tensor,
        gradients: Mapping[str, Sequence[tf.Tensor]],
        global_batch: tf.Tensor | int,
    ) -> None:
        """Adds one step to the averages (in replica context, without communication).

        All arguments are the same on every replica, so the averages are too.

        Args:
          small_batch_square_norms: S, the sum over all small batches of all replicas.
          small_batches: M, small batches that are not empty.
          gradients: by network, the mean gradient over the global batch, neither clipped nor scaled.
          global_batch: B.
        """
        b, s = tf.cast(global_batch, tf.float64), tf.cast(small_batch_square_norms, tf.float64)
        t = _square_norm(tf.nest.flatten([list(values) for values in gradients.values()]))
        several = tf.cast(small_batches, tf.int64) > 1
        has_estimate, pair = several, (s, tf.cast(small_batches, tf.float64), t, b)
        if self._previous:
            has_estimate = several | (self._previous_batch.read_value() > 0)
            pair = tf.cond(several, lambda: pair, lambda: self._with_previous_step(gradients, t, b))

        def average() -> tf.Tensor:
            trace_covariance, square_gradient = two_size_estimate(*pair)
            new = {
                "trace_covariance": trace_covariance,
                "square_gradient": square_gradient,
                "mean_square": t,
                "weight": tf.ones([], tf.float64),
            }
            for name, variable in self._sums.items():
                step_weight = tf.constant(1.0 - self._smoothing, tf.float64)
                variable.assign_add(step_weight * (new[name] - variable.read_value()))
            return tf.constant(True)

        tf.cond(has_estimate, average, lambda: tf.constant(False))
        if self._previous:
            self._previous_batch.assign(b)
            for name, values in gradients.items():
                for variable, gradient in zip(self._previous[name], values, strict=True):
                    variable.assign(gradient)

    def value(self) -> NoiseScaleValue:
        """The averages so far, on the host."""
        sums = {name: float(variable.numpy()) for name, variable in self._sums.items()}
        # Averages start from 0, so they are too small by the factor `weight`, as in Adam; ratios are not.
        weight = sums["weight"] or math.nan
        return NoiseScaleValue(
            noise_scale=_ratio(sums["trace_covariance"], sums["square_gradient"]),
            norm_test_scale=_ratio(sums["trace_covariance"], sums["mean_square"]),
            trace_covariance=sums["trace_covariance"] / weight,
            square_gradient=sums["square_gradient"] / weight,
        )

    def _with_previous_step(
        self, gradients: Mapping[str, Sequence[tf.Tensor]], square_norm: tf.Tensor, batch: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """S, M, T and B of the two steps as two small batches of one big batch."""
        before = self._previous_batch.read_value()
        total = before + batch
        previous, mean = [], []
        for name, values in gradients.items():
            for variable, gradient in zip(self._previous[name], values, strict=True):
                old = variable.read_value()
                weight = tf.cast(before / total, gradient.dtype)
                previous.append(old)
                mean.append(weight * old + (1 - weight) * gradient)
        square_norms = before * _square_norm(previous) + batch * square_norm
        return square_norms, tf.constant(2.0, tf.float64), _square_norm(mean), total


def _square_norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Sum of squares of all entries; tensors are added up in float64."""
    return tf.add_n([tf.cast(tf.reduce_sum(tf.square(x)), tf.float64) for x in tensors])


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.inf if numerator > 0 else math.nan
