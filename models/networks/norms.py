"""The norms of the networks, with PyTorch's statistics.

Weights trained by the reference (pytorch-CycleGAN-and-pix2pix) give the reference's images only if the
moments are the same. Each class documents how it differs from Keras's own layer, and why. All are NHWC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.replica_context import batches_in_pass, computes_on_cpu, example_weights, replica_count
from models.networks.batch_moments import BatchMoments, batch_moments
from models.networks.layers import INITIAL_STDDEV, Shape, at_least_float32

NORMS = ("batch", "instance", "none")
MOVING_STATISTICS = "moving_statistics"
INFERENCE_NORMS = ("batch_statistics", MOVING_STATISTICS)

_MOST_FUSED_EXAMPLES = 16  # each is an operation of its own


def _centre_each_example(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the moments over H and W: x [B, H, W, C] -> x minus its mean, biased variance [B, 1, 1, C]."""
    # tf.nn.moments stops the gradient at its inner mean, which makes second derivatives wrong; gradient
    # penalties need them.
    centred = x - tf.reduce_mean(x, [1, 2], keepdims=True)
    return centred, tf.reduce_mean(tf.square(centred), [1, 2], keepdims=True)


@keras.saving.register_keras_serializable(package="gantry")
class InstanceNorm(keras.layers.Layer):
    """Normalises each channel of each example over H and W, with the biased variance; it has no weights.

    Source: Ulyanov et al., "Instance Normalization", 2016.

    Args:
      epsilon: added to the variance.
      **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        return input_shape

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> the same shape in the compute dtype."""
        if _can_fuse_each_example(x):
            unscaled = tf.ones(x.shape[-1:]), tf.zeros(x.shape[-1:])
            return _fused(x, *unscaled, epsilon=self.epsilon, batches=x.shape[0])[0]
        centred, variance = _centre_each_example(at_least_float32(x))
        return tf.cast(centred * tf.math.rsqrt(variance + self.epsilon), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


def _row_weights(rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns 1 for the rows that are examples, 0 for padding: [rows] of the dtype."""
    weights = example_weights()
    if weights is None:
        return tf.ones([rows], dtype)
    # A task may make one batch of several.
    return tf.cast(tf.tile(weights, [rows // tf.shape(weights)[0]]), dtype)


def _global_moments(x: tf.Tensor) -> BatchMoments:
    """Computes the moments of the global batch, or of each of the K batches of the pass.

    It adds sums and counts over the replicas, so each example has the same weight, however many a replica
    has, and padding rows have none.

    Args:
      x: [K B, H, W, C] of this replica.

    Returns:
      Moments of [K, B, H, W, C].
    """
    # Not E[x^2] - E[x]^2, which Keras uses when it synchronises: it loses precision when the mean is large
    # compared with the deviation.
    shape = tf.concat([[batches_in_pass(), -1], tf.shape(x)[1:]], 0)
    batches = tf.reshape(x, shape)  # [K, B, H, W, C]
    return batch_moments(batches, _row_weights(tf.shape(batches)[1], x.dtype))


def _as_one_batch(x: tf.Tensor) -> tf.Tensor:
    """[K, B, H, W, C], as `_global_moments` leaves it, -> [K B, H, W, C]; what has four axes stays."""
    return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0)) if x.shape.rank == 5 else x


def _can_fuse(x: tf.Tensor) -> bool:
    """Whether `_fused` gives the same: all examples are on this replica, and no row is padding."""
    return x.dtype != tf.float64 and replica_count() == 1 and example_weights() is None


def _can_fuse_each_example(x: tf.Tensor) -> bool:
    """Whether `_fused` for each example gives the same in less time."""
    examples = x.shape[0]
    return (
        x.dtype != tf.float64
        and examples is not None  # else the number of operations is unknown
        and examples <= _MOST_FUSED_EXAMPLES
        and computes_on_cpu()
    )


def _fused(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, epsilon: float, batches: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises each of K batches in TensorFlow's one operation, in float32.

    Args:
      x: [K B, H, W, C].
      gamma: scale, [C].
      beta: offset, [C].
      epsilon: added to the variance.
      batches: K.

    Returns:
      The batches in the dtype and shape of x, the means [K, C] and the unbiased variances [K, C].
    """
    found = [
        tf.raw_ops.FusedBatchNormV3(
            x=batch, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
        )[:3]
        for batch in tf.split(x, batches)
    ]
    normalised, means, variances = zip(*found, strict=True)
    return tf.concat(normalised, 0), tf.stack(means), tf.stack(variances)


@keras.saving.register_keras_serializable(package="gantry")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation over the global batch of all replicas, with PyTorch's moving statistics.

    In training it normalises with the biased moments of the global batch, and moves the moving mean and the
    moving **unbiased** variance, which PyTorch stores, by a tenth. All replicas compute the same moments, so
    their copies stay equal. Outside training nothing moves.

    A layer with `trainable = False` normalises with its moving statistics everywhere, and they do not move.
    Initially gamma ~ N(1, 0.02) and beta = 0.

    Args:
      inference_norm: what it uses outside training. "batch_statistics": the moments of each single image over
        H and W; the reference uses batch statistics at batch size 1 (pix2pix paper, section 3.3), and this
        gives the same at any batch size. "moving_statistics": the moving mean and variance.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ConfigurationError: `inference_norm` is unknown.
    """

    keeps_batches_apart = True

    def __init__(self, *, inference_norm: str = "batch_statistics", **kwargs: Any) -> None:
        _check_choice(inference_norm, known=INFERENCE_NORMS, what="inference_norm")
        super().__init__(
            synchronized=True,
            momentum=0.9,
            epsilon=1e-5,
            gamma_initializer=keras.initializers.RandomNormal(1.0, INITIAL_STDDEV),
            **kwargs,
        )
        self.inference_norm = inference_norm

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, H, W, C] -> the same shape in the compute dtype."""
        if training and self.trainable and _can_fuse(x):
            y, mean, unbiased = _fused(
                x, self.gamma, self.beta, epsilon=self.epsilon, batches=batches_in_pass()
            )
            _move(self, mean, unbiased)
            return y
        x = at_least_float32(x)
        if training and self.trainable:
            centred, variance, mean, count = _global_moments(x)
            _move(self, mean, variance * count / tf.maximum(count - 1, 1))
        elif self.inference_norm == "batch_statistics" and self.trainable:
            centred, variance = _centre_each_example(x)
        else:
            centred = x - tf.cast(self.moving_mean, x.dtype)
            variance = tf.cast(self.moving_variance, x.dtype)
        scale = tf.cast(self.gamma, x.dtype) * tf.math.rsqrt(variance + self.epsilon)
        y = centred * scale + tf.cast(self.beta, x.dtype)
        return tf.cast(_as_one_batch(y), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        # Not BatchNormalization's, whose arguments the constructor sets itself.
        return {**keras.layers.Layer.get_config(self), "inference_norm": self.inference_norm}


@keras.saving.register_keras_serializable(package="gantry")
class GlobalBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the examples of the global batch, for Keras's own networks.

    The arguments, the weights and what it computes outside training are Keras's, and so are the moving
    statistics: the moving variance is that of the biased one. In training on several replicas the moments
    are those of `BatchNorm`: each example counts once, and padding rows do not.

    It takes [B, H, W, C], normalised over the last axis.
    """

    keeps_batches_apart = True

    def call(self, x: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        """[B, H, W, C] -> the same shape in the compute dtype. Keras passes a mask, which images lack."""
        del mask
        if training and self.trainable and _can_fuse(x):
            channels = x.shape[-1:]
            gamma = self.gamma if self.scale else tf.ones(channels)
            beta = self.beta if self.center else tf.zeros(channels)
            y, mean, unbiased = _fused(x, gamma, beta, epsilon=self.epsilon, batches=batches_in_pass())
            count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]) // batches_in_pass(), mean.dtype)
            _move(self, mean, unbiased * tf.maximum(count - 1, 1) / count)
            return y
        x = at_least_float32(x)
        if training and self.trainable:
            centred, variance, mean, _ = _global_moments(x)
            _move(self, mean, variance)
        else:
            centred = x - tf.cast(self.moving_mean, x.dtype)
            variance = tf.cast(self.moving_variance, x.dtype)
        x = centred * tf.math.rsqrt(variance + self.epsilon)
        if self.scale:
            x = x * tf.cast(self.gamma, x.dtype)
        if self.center:
            x = x + tf.cast(self.beta, x.dtype)
        return tf.cast(_as_one_batch(x), self.compute_dtype)


def _move(layer: keras.layers.BatchNormalization, mean: tf.Tensor, variance: tf.Tensor) -> None:
    """Moves the layer's moving statistics towards those of each batch of the pass, [K, ..., C] each."""
    for moving, found in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        for new in tf.unstack(found, batches_in_pass()):
            new = tf.reshape(new, [-1])  # [C]
            old = tf.cast(moving.value, new.dtype)
            moving.assign(old + (new - old) * (1 - layer.momentum))


def normalise(
    x: keras.KerasTensor, norm: str, *, inference_norm: str = "batch_statistics", name: str
) -> keras.KerasTensor:
    """Adds a normalisation layer to a network.

    Args:
      x: [B, H, W, C].
      norm: one of NORMS; "none" adds no layer.
      inference_norm: see `BatchNorm`; one of INFERENCE_NORMS.
      name: of the layer.

    Raises:
      ConfigurationError: `norm` or `inference_norm` is unknown.
    """
    _check_choice(norm, known=NORMS, what="norm")
    _check_choice(inference_norm, known=INFERENCE_NORMS, what="inference_norm")
    if norm == "batch":
        return BatchNorm(inference_norm=inference_norm, name=name)(x)
    if norm == "instance":
        return InstanceNorm(name=name)(x)
    return x


def has_bias(norm: str) -> bool:
    """Whether a convolution before this norm has a bias: not before batch norm, whose beta replaces it."""
    return norm != "batch"  # the reference leaves it out for "none" too, by mistake


def _check_choice(value: str, *, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise ConfigurationError(f"{what} {value!r}: unknown; use one of {', '.join(known)}")
