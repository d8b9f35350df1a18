"""The layers of the networks, with PyTorch's geometry and statistics.

Weights trained by the reference (pytorch-CycleGAN-and-pix2pix) give the reference's images only if all
padding, cropping and moments are the same. Each class documents how it differs from Keras's own layer, and
why. All layers are NHWC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import example_weights, sum_over_replicas

NORMS = ("batch", "instance", "none")
INFERENCE_NORMS = ("batch_statistics", "moving_statistics")
INITIAL_STDDEV = 0.02

Shape = tuple[Any, ...]
"""Sizes of a tensor's axes; None where unknown."""


def _check_choice(value: str, *, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise ConfigurationError(f"{what} {value!r}: unknown; use one of {', '.join(known)}")


def at_least_float32(x: Any) -> tf.Tensor:
    """Casts half precision to float32, for means and sums; float64 stays float64.

    Args:
      x: a tensor, or what TensorFlow can convert to one.
    """
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


@keras.saving.register_keras_serializable(package="gantry")
class ReflectionPadding2D(keras.layers.Layer):
    """Mirrors the border without repeating the edge: [B, H, W, C] -> [B, H + 2 padding, W + 2 padding, C].

    Args:
      padding: pixels on each side; H and W must be larger.
      **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, padding: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, channels = input_shape
        grow = 2 * self.padding
        return (batch, height and height + grow, width and width + grow, channels)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H + 2 padding, W + 2 padding, C]."""
        p = self.padding
        return tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]], mode="REFLECT")  # [B, H+2p, W+2p, C]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "padding": self.padding}


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
        centred, variance = _centre_each_example(at_least_float32(x))
        return tf.cast(centred * tf.math.rsqrt(variance + self.epsilon), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


def _row_weights(x: tf.Tensor) -> tf.Tensor:
    """Returns 1 for the rows of x that are examples, 0 for padding: [B, 1, 1, 1] of x's dtype."""
    weights = example_weights()
    if weights is None:
        return tf.ones([tf.shape(x)[0], 1, 1, 1], x.dtype)
    # A task may concatenate several batches, to pass them through the network together.
    weights = tf.tile(weights, [tf.shape(x)[0] // tf.shape(weights)[0]])  # [B]
    return tf.cast(weights, x.dtype)[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _centre_global_batch(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the moments of the global batch.

    It adds sums and counts over the replicas, so each example has the same weight, however many a replica
    has, and padding rows have none.

    Args:
      x: [B, H, W, C] of this replica.

    Returns:
      x minus the mean, the biased variance [C], the mean [C] and the count [].
    """
    # In two passes, the mean first: E[x^2] - E[x]^2, which Keras uses when it synchronises, loses precision
    # when the mean is large compared with the deviation.
    axes = [0, 1, 2]
    weights = _row_weights(x)
    positions = tf.cast(tf.shape(x)[1] * tf.shape(x)[2], x.dtype)
    local_count = positions * tf.reduce_sum(weights)
    sums = tf.concat([tf.reduce_sum(weights * x, axes), local_count[tf.newaxis]], 0)  # [C + 1]
    sums = sum_over_replicas(sums)
    count = sums[-1]
    mean = sums[:-1] / count
    centred = x - mean
    squares = sum_over_replicas(tf.reduce_sum(weights * tf.square(centred), axes))
    return centred, squares / count, mean, count


@keras.saving.register_keras_serializable(package="gantry")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation over the global batch of all replicas, with PyTorch's moving statistics.

    In training it normalises with the biased moments of the global batch, and moves the moving mean and the
    moving **unbiased** variance, which PyTorch stores, by a tenth. All replicas compute the same moments, so
    their copies stay equal. Outside training nothing moves.

    Only the argument `training` decides: as in PyTorch, and unlike in Keras, a layer with `trainable = False`
    still moves its statistics in training. Initially gamma ~ N(1, 0.02) and beta = 0.

    Args:
      inference_norm: what it uses outside training. "batch_statistics": the moments of each single image over
        H and W; the reference uses batch statistics at batch size 1 (pix2pix paper, section 3.3), and this
        gives the same at any batch size. "moving_statistics": the moving mean and variance.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ConfigurationError: `inference_norm` is unknown.
    """

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
        x = at_least_float32(x)
        if training:
            centred, variance, mean, count = _centre_global_batch(x)
            self._move_statistics(mean, variance, count)
        elif self.inference_norm == "batch_statistics":
            centred, variance = _centre_each_example(x)
        else:
            centred = x - tf.cast(self.moving_mean, x.dtype)
            variance = tf.cast(self.moving_variance, x.dtype)
        scale = tf.cast(self.gamma, x.dtype) * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(centred * scale + tf.cast(self.beta, x.dtype), self.compute_dtype)

    def _move_statistics(self, mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor) -> None:
        unbiased = variance * count / tf.maximum(count - 1, 1)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            old = tf.cast(moving.value, new.dtype)
            moving.assign(old + (new - old) * (1 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        # Not BatchNormalization's, whose arguments the constructor sets itself.
        return {**keras.layers.Layer.get_config(self), "inference_norm": self.inference_norm}


def _initial_kernel() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, INITIAL_STDDEV)


@keras.saving.register_keras_serializable(package="gantry")
class Conv(keras.layers.Conv2D):
    """2-D convolution with the geometry of PyTorch's `Conv2d(kernel_size, stride, padding)`.

    [B, H, W, C] -> [B, floor((H + 2 padding - kernel) / stride) + 1, ..., filters]. It adds zeros on both
    sides and makes a VALID convolution: at stride 2, TensorFlow's SAME pads even sizes by (0, 1) for a 3x3
    kernel and odd sizes unevenly for a 4x4 kernel, which shifts the image.

    Args:
      filters: number of outputs.
      kernel: height and width of the kernel.
      stride: in both directions.
      padding: zeros on each side.
      **kwargs: those of `keras.layers.Conv2D`. The initial kernel is N(0, 0.02) by default.
    """

    def __init__(
        self, filters: int, kernel: int, *, stride: int = 1, padding: int = 0, **kwargs: Any
    ) -> None:
        kwargs = {"kernel_initializer": _initial_kernel()} | kwargs
        super().__init__(filters, kernel, stride, **kwargs)
        self.zeros = padding  # Keras's own attribute `padding` is "valid"

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, channels = input_shape
        grow = 2 * self.zeros
        padded = (batch, height and height + grow, width and width + grow, channels)
        return super().compute_output_shape(padded)

    def convolution_op(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Pads and convolves; Keras adds the bias."""
        zeros = [self.zeros, self.zeros]
        padded = tf.pad(x, [[0, 0], zeros, zeros, [0, 0]]) if self.zeros else x
        return super().convolution_op(padded, kernel)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **keras.layers.Layer.get_config(self),
            "filters": self.filters,
            "kernel": self.kernel_size[0],
            "stride": self.strides[0],
            "padding": self.zeros,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable(package="gantry")
class ConvTranspose(keras.layers.Conv2DTranspose):
    """2-D transposed convolution that exactly doubles: [B, H, W, C] -> [B, 2H, 2W, filters].

    Args:
      filters: number of outputs.
      kernel: height and width of the kernel. 4 is PyTorch's `ConvTranspose2d(4, stride=2, padding=1)`, which
        is SAME. 3 is `ConvTranspose2d(3, stride=2, padding=1, output_padding=1)`: VALID gives 2H + 1 rows, of
        which the layer crops the first; SAME would crop the last and shift the image.
      **kwargs: those of `keras.layers.Conv2DTranspose`. The initial kernel is N(0, 0.02).

    Raises:
      ValueError: another kernel size.
    """

    def __init__(self, filters: int, kernel: int, **kwargs: Any) -> None:
        if kernel not in (3, 4):
            raise ValueError(f"ConvTranspose: a kernel of {kernel} does not double the size; use 3 or 4")
        padding = "same" if kernel == 4 else "valid"
        super().__init__(filters, kernel, 2, padding, kernel_initializer=_initial_kernel(), **kwargs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, _ = input_shape
        return (batch, height and 2 * height, width and 2 * width, self.filters)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, 2H, 2W, filters]."""
        y = super().call(x)
        return y[:, 1:, 1:] if self.padding == "valid" else y  # [B, 2H, 2W, C]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **keras.layers.Layer.get_config(self),
            "filters": self.filters,
            "kernel": self.kernel_size[0],
            "use_bias": self.use_bias,
        }


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


def variable_dtype() -> str:
    """The dtype of the variables under the current policy, such as "float32" under mixed_bfloat16."""
    return keras.config.dtype_policy().variable_dtype


def image_input(channels: int) -> keras.KerasTensor:
    """Creates the input of a network, [B, H, W, channels], in the dtype of the variables."""
    # Keras's default is float32 under any policy, which would round the inputs of float64 networks.
    return keras.Input((None, None, channels), dtype=variable_dtype(), name="image")
