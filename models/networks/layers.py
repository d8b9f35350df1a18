"""The layers the networks are built of, with PyTorch's geometry and statistics.

Weights trained by the reference (pytorch-CycleGAN-and-pix2pix) give the reference's pictures only
if every pad, crop and moment is the same. What differs from Keras' own layers, and why, stands
with each class. All layers are NHWC.
"""

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import example_weights

NORMS = ("batch", "instance", "none")
INFERENCE_NORMS = ("batch_statistics", "moving_statistics")
INITIAL_STDDEV = 0.02


def _check_choice(value, *, known, what):
    if value not in known:
        raise ConfigurationError(f"unknown {what} {value!r}; choose one of: {', '.join(known)}")


def at_least_float32(x):
    """X as a tensor, for forming means: half precision becomes float32, float64 stays float64."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


@keras.saving.register_keras_serializable(package="gantry")
class ReflectionPadding2D(keras.layers.Layer):
    """Mirrors the border: [B, H, W, C] -> [B, H + 2 padding, W + 2 padding, C], edge not repeated.

    H and W must be larger than `padding`.
    """

    def __init__(self, padding, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        grow = 2 * self.padding
        return (batch, height and height + grow, width and width + grow, channels)

    def call(self, x):
        p = self.padding
        return tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]], mode="REFLECT")  # [B, H+2p, W+2p, C]

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


def _centre_each_example(x):
    """X [B, H, W, C] -> x minus its mean over H and W, and the biased variance [B, 1, 1, C].

    `tf.nn.moments` stops the gradient at its inner mean, which makes second derivatives wrong
    (gradient penalties need them), so the moments are written out here.
    """
    centred = x - tf.reduce_mean(x, [1, 2], keepdims=True)
    return centred, tf.reduce_mean(tf.square(centred), [1, 2], keepdims=True)


@keras.saving.register_keras_serializable(package="gantry")
class InstanceNorm(keras.layers.Layer):
    """Normalises every channel of every example over H and W; no weights, no running statistics.

    x [B, H, W, C] -> the same shape in the compute dtype; the variance is the biased one.
    Source: Ulyanov et al., "Instance Normalization", 2016.
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        centred, variance = _centre_each_example(at_least_float32(x))
        return tf.cast(centred * tf.math.rsqrt(variance + self.epsilon), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


def _sum_over_replicas(x):
    """The sum over all replicas, differentiable; x itself where there is only one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def _row_weights(x):
    """1 for the rows of x that are examples, 0 for padding: [B, 1, 1, 1] of x's dtype."""
    weights = example_weights()
    if weights is None:
        return tf.ones([tf.shape(x)[0], 1, 1, 1], x.dtype)
    # A task may have stacked several batches into one, so that they pass the network together.
    weights = tf.tile(weights, [tf.shape(x)[0] // tf.shape(weights)[0]])  # [B]
    return tf.cast(weights, x.dtype)[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _centre_global_batch(x):
    """X [B, H, W, C] of this replica -> x minus the mean, variance [C], mean [C], count [].

    Moments of the global batch: sums and counts are added over the replicas, so that an uneven share
    weighs as much as it has examples, and padding rows nothing. Two passes, mean first:
    E[x^2] - E[x]^2, which Keras uses when it synchronises, cancels when the mean is large against
    the deviation.
    """
    axes = [0, 1, 2]
    weights = _row_weights(x)
    positions = tf.cast(tf.shape(x)[1] * tf.shape(x)[2], x.dtype)
    local_count = positions * tf.reduce_sum(weights)
    sums = tf.concat([tf.reduce_sum(weights * x, axes), local_count[tf.newaxis]], 0)  # [C + 1]
    sums = _sum_over_replicas(sums)
    count = sums[-1]
    mean = sums[:-1] / count
    centred = x - mean
    squares = _sum_over_replicas(tf.reduce_sum(weights * tf.square(centred), axes))
    return centred, squares / count, mean, count


@keras.saving.register_keras_serializable(package="gantry")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation over the global batch of all replicas, with PyTorch's moving statistics.

    Training: normalises with the biased moments of the global batch and moves the moving mean and
    the moving **unbiased** variance (n / (n - 1), n counted over all replicas; PyTorch stores that
    one) by a tenth. All replicas compute the same moments, so their copies stay equal.

    Inference (`training=False`) never moves anything and uses, by `inference_norm`:
    - "batch_statistics": the moments of each single picture over H and W. The reference tests with
      batch statistics at batch 1 (pix2pix paper, section 3.3); this is the same at any batch.
    - "moving_statistics": the moving mean and variance.

    Only the `training` argument chooses between the two: as in PyTorch, and unlike in Keras, a
    layer with `trainable = False` still trains its statistics. gamma ~ N(1, 0.02), beta = 0.
    """

    def __init__(self, *, inference_norm="batch_statistics", **kwargs):
        _check_choice(inference_norm, known=INFERENCE_NORMS, what="inference_norm")
        super().__init__(
            synchronized=True,
            momentum=0.9,
            epsilon=1e-5,
            gamma_initializer=keras.initializers.RandomNormal(1.0, INITIAL_STDDEV),
            **kwargs,
        )
        self.inference_norm = inference_norm

    def call(self, x, training=None):
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

    def _move_statistics(self, mean, variance, count):
        unbiased = variance * count / tf.maximum(count - 1, 1)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            old = tf.cast(moving.value, new.dtype)
            moving.assign(old + (new - old) * (1 - self.momentum))

    def get_config(self):
        # Without what the constructor fixes.
        return {**keras.layers.Layer.get_config(self), "inference_norm": self.inference_norm}


def _initial_kernel():
    return keras.initializers.RandomNormal(0.0, INITIAL_STDDEV)


@keras.saving.register_keras_serializable(package="gantry")
class Conv(keras.layers.Conv2D):
    """2-D convolution as PyTorch's `Conv2d(kernel_size, stride, padding)`; weights N(0, 0.02) by default.

    [B, H, W, C] -> [B, floor((H + 2 padding - kernel) / stride) + 1, ..., filters]. The zeros are
    added on both sides before a VALID convolution: at stride 2, TensorFlow's SAME pads even sizes
    by (0, 1) for a 3x3 kernel and odd sizes unevenly for a 4x4 one, which shifts the picture.
    """

    def __init__(self, filters, kernel, *, stride=1, padding=0, **kwargs):
        kwargs = {"kernel_initializer": _initial_kernel()} | kwargs
        super().__init__(filters, kernel, stride, **kwargs)
        self.zeros = padding  # Keras' own attribute `padding` is "valid"

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        grow = 2 * self.zeros
        padded = (batch, height and height + grow, width and width + grow, channels)
        return super().compute_output_shape(padded)

    def convolution_op(self, x, kernel):
        zeros = [self.zeros, self.zeros]
        padded = tf.pad(x, [[0, 0], zeros, zeros, [0, 0]]) if self.zeros else x
        return super().convolution_op(padded, kernel)

    def get_config(self):
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

    kernel 4 is PyTorch's `ConvTranspose2d(4, stride=2, padding=1)`, which is SAME. kernel 3 is
    `ConvTranspose2d(3, stride=2, padding=1, output_padding=1)`: VALID gives 2H + 1 rows, of which
    the first is cropped; SAME would crop the last and shift the picture. Weights N(0, 0.02).
    """

    def __init__(self, filters, kernel, **kwargs):
        if kernel not in (3, 4):
            raise ValueError(f"only 3x3 and 4x4 kernels double the size exactly, not {kernel}")
        padding = "same" if kernel == 4 else "valid"
        super().__init__(filters, kernel, 2, padding, kernel_initializer=_initial_kernel(), **kwargs)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, height and 2 * height, width and 2 * width, self.filters)

    def call(self, x):
        y = super().call(x)
        return y[:, 1:, 1:] if self.padding == "valid" else y  # [B, 2H, 2W, C]

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "filters": self.filters,
            "kernel": self.kernel_size[0],
            "use_bias": self.use_bias,
        }


def normalize(x, norm, *, inference_norm="batch_statistics", name):
    """X [B, H, W, C] through the normalisation called `norm`, one of NORMS.

    Raises ConfigurationError, listing the known names, if it or `inference_norm` is not known.
    """
    _check_choice(norm, known=NORMS, what="norm")
    _check_choice(inference_norm, known=INFERENCE_NORMS, what="inference_norm")
    if norm == "batch":
        return BatchNorm(inference_norm=inference_norm, name=name)(x)
    if norm == "instance":
        return InstanceNorm(name=name)(x)
    return x


def has_bias(norm):
    """Whether a convolution before this norm has a bias: not before batch norm, whose beta is one.

    The reference leaves it out for "none" too, which is a mistake there and is not followed.
    """
    return norm != "batch"


def variable_dtype():
    """The dtype of the variables under the current policy: float32 under mixed_bfloat16."""
    return keras.config.dtype_policy().variable_dtype


def image_input(channels):
    """The input of a network, [B, H, W, channels], in the dtype of the variables.

    Keras' default is float32 under any policy: it would round what float64 networks are given.
    """
    return keras.Input((None, None, channels), dtype=variable_dtype(), name="image")
