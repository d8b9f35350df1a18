"""The gradient noise scale of a phase, measured from the parts of which its gradient is summed anyway.

McCandlish et al. 2018 (arXiv 1812.06162): with G the true gradient and Sigma the covariance of the
gradient of one example, B_simple = tr(Sigma) / |G|^2 examples is the batch at which noise and signal are
of one size. Share i of a step (one micro-batch on one replica) has n_i examples, with mean gradient g_i;
the global batch is B = sum n_i over the M shares that are not empty. The engine holds each share's part
of the mean gradient, h_i = n_i g_i / B, and after the all-reduce the mean gradient gbar = sum h_i. Since
E|g_i|^2 = |G|^2 + tr(Sigma) / n_i and likewise for gbar,

    S = sum B^2 |h_i|^2 / n_i = sum n_i |g_i|^2        E S = B |G|^2 + M tr(Sigma)
    T = |gbar|^2                                       E T = |G|^2 + tr(Sigma) / B

    tr(Sigma) = (S - B T) / (M - 1)                    |G|^2 = T - tr(Sigma) / B

without bias, and tr(Sigma) is negative by rounding only (S >= B T, Cauchy and Schwarz). With equal shares
n = B / M and s = S / B the mean of |g_i|^2, these are (s - T) / (1/n - 1/B) and (B T - n s) / (B - n): the
two-size formula of McCandlish, appendix A.1.

Examples count as drawn independently: what couples the examples of a share (batch norm) or is common to
all of them (one dropout seed) is not seen as noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError


def share_square(
    gradients: Sequence[tf.Tensor], *, examples: tf.Tensor, global_batch: tf.Tensor
) -> tf.Tensor:
    """One share's summand of S: B^2 |h|^2 / n, which is n |g|^2.

    Args:
      gradients: h, this share's part of the mean gradient over the global batch, before the all-reduce.
      examples: n, examples of the share; with none the summand is 0 whatever `gradients` hold.
      global_batch: B.

    Returns:
      float64 scalar; the sum over shares and replicas is what `NoiseScale.update` takes.
    """
    scale = tf.cast(global_batch, tf.float64) ** 2
    return tf.math.divide_no_nan(scale * _square(gradients), tf.cast(examples, tf.float64))


def two_size_estimate(
    share_squares: tf.Tensor, shares: tf.Tensor, mean_square: tf.Tensor, global_batch: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Unbiased tr(Sigma) of one example and |G|^2 of one step; the module says how.

    Args:
      share_squares: S.
      shares: M, shares that are not empty, at least 2.
      mean_square: T.
      global_batch: B.

    Returns:
      tr(Sigma) and |G|^2, float64, of the arguments' common shape. |G|^2 may come out negative.
    """
    s, m, t, b = (tf.cast(x, tf.float64) for x in (share_squares, shares, mean_square, global_batch))
    trace_covariance = (s - b * t) / (m - 1.0)
    return trace_covariance, t - trace_covariance / b


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseScaleValue:
    """What is known of one phase; nan where nothing is yet.

    Args:
      noise_scale: tr(Sigma) / |G|^2, in examples; inf where |G|^2 is estimated at or below 0, which
        says that the noise hides the gradient.
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

    The single estimates are noisy and |G|^2 may be negative, so numerator and denominator are averaged
    apart and divided last; a mean of ratios would be biased. tr(Sigma) is kept for one example, not for
    the mean over a batch: a variance of the mean would have to be rescaled by B_old / B_new whenever the
    batch changes, and this one holds for any batch. |gbar|^2 does depend on the batch, and follows a
    change of it as slowly as the average moves.

    A step of one share (one replica, one micro-batch) says nothing of the spread. There the step before
    and this one are the two shares of a batch of B_before + B, in overlapping pairs; the first step gives
    nothing. The weights moved in between, so tr(Sigma) is too large by B_before B / (B_before + B)
    times the squared change of G: small at small learning rates.

    Create it under the strategy's scope.

    Args:
      networks: by name, the variables whose gradients `update` gets, with shape and dtype.
      smoothing: decay of the averages for each step that gives an estimate, in [0, 1).
      combine_steps: keeps the gradient of the step before (as large as the variables, on every replica);
        needed if a step may have one share.
    """

    def __init__(
        self,
        networks: Mapping[str, Sequence[keras.Variable]],
        *,
        smoothing: float = 0.99,
        combine_steps: bool = False,
    ):
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
        share_squares: tf.Tensor,
        shares: tf.Tensor,
        gradients: Mapping[str, Sequence[tf.Tensor]],
        global_batch: tf.Tensor,
    ) -> None:
        """Takes one step in (in replica context, without communication).

        All arguments are the same on every replica, and so the averages stay the same.

        Args:
          share_squares: S, summed over all shares of all replicas.
          shares: M, shares that are not empty.
          gradients: by network, the mean gradient over the global batch, as the loss gives it: neither
            clipped nor scaled.
          global_batch: B.
        """
        b, s = tf.cast(global_batch, tf.float64), tf.cast(share_squares, tf.float64)
        mean_square = _square(tf.nest.flatten([list(values) for values in gradients.values()]))
        several = tf.cast(shares, tf.int64) > 1
        known, pair = several, (s, tf.cast(shares, tf.float64), mean_square, b)
        if self._previous:
            known = several | (self._previous_batch.read_value() > 0)
            pair = tf.cond(several, lambda: pair, lambda: self._with_step_before(gradients, mean_square, b))

        def take_in():
            trace_covariance, square_gradient = two_size_estimate(*pair)
            new = {
                "trace_covariance": trace_covariance,
                "square_gradient": square_gradient,
                "mean_square": mean_square,
                "weight": tf.ones([], tf.float64),
            }
            for name, variable in self._sums.items():
                share = tf.constant(1.0 - self._smoothing, tf.float64)
                variable.assign_add(share * (new[name] - variable.read_value()))
            return tf.constant(True)

        tf.cond(known, take_in, lambda: tf.constant(False))
        if self._previous:
            self._previous_batch.assign(b)
            for name, values in gradients.items():
                for variable, gradient in zip(self._previous[name], values, strict=True):
                    variable.assign(gradient)

    def value(self) -> NoiseScaleValue:
        """The averages so far, on the host."""
        sums = {name: float(variable.numpy()) for name, variable in self._sums.items()}
        weight = sums["weight"] or math.nan  # sums and weight are short of 1 alike, so ratios need no weight
        return NoiseScaleValue(
            noise_scale=_ratio(sums["trace_covariance"], sums["square_gradient"]),
            norm_test_scale=_ratio(sums["trace_covariance"], sums["mean_square"]),
            trace_covariance=sums["trace_covariance"] / weight,
            square_gradient=sums["square_gradient"] / weight,
        )

    def _with_step_before(self, gradients, mean_square: tf.Tensor, batch: tf.Tensor):
        """S, M, T and B of the two steps as two shares of one batch."""
        before = self._previous_batch.read_value()
        total = before + batch
        previous, mean = [], []
        for name, values in gradients.items():
            for variable, gradient in zip(self._previous[name], values, strict=True):
                old = variable.read_value()
                weight = tf.cast(before / total, gradient.dtype)
                previous.append(old)
                mean.append(weight * old + (1 - weight) * gradient)
        share_squares = before * _square(previous) + batch * mean_square
        return share_squares, tf.constant(2.0, tf.float64), _square(mean), total


def _square(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Sum of squares of all entries, float64."""
    return tf.add_n([tf.cast(tf.reduce_sum(tf.square(x)), tf.float64) for x in tensors])


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.inf if numerator > 0 else math.nan
