"""A U-Net that takes a latent code, and the encoder that finds the code of a picture, as in BicycleGAN.

Source: Zhu et al., arXiv 1711.11586; geometry, widths and initial weights are those of the authors' code
(junyanz/BicycleGAN).
"""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from engine.task import ConfigurationError
from models import layers

GENERATORS = {f"unet_{2**levels}": levels for levels in range(5, 9)}
"""Downsamplings by name; the name is the size of pictures (pixels) that end as 1x1."""

ENCODERS = {f"resnet_{2 ** (levels + 3)}": levels for levels in range(2, 6)}
"""Downsamplings by name; the name is the size of pictures (pixels) that end as 8x8."""

LATENT_AT = ("all", "input")


@keras.saving.register_keras_serializable(package="gantry")
class ConcatenateLatent(keras.layers.Layer):
    """Adds a code to every pixel: x [B, H, W, C], latent [B, Z] -> [B, H, W, C + Z]."""

    def compute_output_shape(self, x_shape, latent_shape):
        return (*x_shape[:-1], x_shape[-1] + latent_shape[-1])

    def call(self, x, latent):
        spread = latent[:, tf.newaxis, tf.newaxis, :]  # [B, 1, 1, Z]
        spread = tf.broadcast_to(spread, tf.concat([tf.shape(x)[:3], [latent.shape[-1]]], 0))
        return tf.concat([x, tf.cast(spread, x.dtype)], axis=-1)


def latent_unet(
    *,
    name,
    input_channels,
    output_channels,
    latent_size,
    downsamplings,
    latent_at="all",
    filters=64,
    norm="instance",
    dropout=False,
    inference_norm="batch_statistics",
):
    """`models.unet.unet` with a second input, a code of `latent_size` numbers [B, Z] beside [B, H, W, C].

    The code is concatenated to every pixel that a downsampling convolution sees: of all of them with
    `latent_at="all"`, of the first with "input". Skip connections carry no code.
    """
    widths = [filters * min(2**level, 8) for level in range(downsamplings)]
    use_bias = layers.has_bias(norm)

    def normalize(x, name):
        return layers.normalize(x, norm, inference_norm=inference_norm, name=name)

    x = image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    latent = keras.Input((latent_size,), dtype=layers.variable_dtype(), name="latent")  # [B, Z]
    skips = []
    for level in range(1, downsamplings + 1):
        if level > 1:
            skips.append(x)
        if level == 1 or latent_at == "all":
            x = ConcatenateLatent(name=f"down_{level}_latent")(x, latent)
        if level > 1:
            x = keras.layers.LeakyReLU(0.2, name=f"down_{level}_activation")(x)
        geometry = {"kernel": 4, "stride": 2, "padding": 1, "use_bias": use_bias}
        x = layers.Conv(widths[level - 1], **geometry, name=f"down_{level}_conv")(x)
        # [B, H/2**level, W/2**level, widths[level - 1]]; a norm over 1x1 would leave nothing.
        if 1 < level < downsamplings:
            x = normalize(x, f"down_{level}_norm")

    for level in range(downsamplings, 1, -1):
        x = keras.layers.ReLU(name=f"up_{level}_activation")(x)
        width = widths[level - 2]
        x = layers.ConvTranspose(width, 4, use_bias=use_bias, name=f"up_{level}_conv")(x)
        x = normalize(x, f"up_{level}_norm")  # [B, H/2**(level-1), W/2**(level-1), width]
        if dropout and 5 <= level < downsamplings:
            x = keras.layers.Dropout(0.5, name=f"up_{level}_dropout")(x)
        x = keras.layers.Concatenate(name=f"up_{level}_skip")([skips.pop(), x])  # 2 width

    x = keras.layers.ReLU(name="up_1_activation")(x)
    x = layers.ConvTranspose(output_channels, 4, name="up_1_conv")(x)  # [B, H, W, output_channels]
    # In bfloat16 the tanh would leave 8 bits for a picture of 256 levels.
    x = keras.layers.Activation("tanh", dtype=layers.variable_dtype(), name="translated")(x)
    return keras.Model([image, latent], x, name=name)


def resnet_encoder(
    *,
    name,
    input_channels,
    latent_size,
    downsamplings,
    filters=64,
    norm="instance",
    inference_norm="batch_statistics",
):
    """A picture [B, H, W, input_channels] in [-1, 1] -> mean and log variance of its code, [B, Z] each.

    A convolution and `downsamplings - 1` residual blocks halve the size; the mean over what is left goes
    through two linear layers. H and W at least 2**downsamplings, as all that the U-Net takes are. (The
    authors pool windows of 8x8, all there is of pictures of the size they train on; so this takes any.)
    """

    def activate(x, name):
        x = layers.normalize(x, norm, inference_norm=inference_norm, name=f"{name}_norm")
        return keras.layers.LeakyReLU(0.2, name=f"{name}_activation")(x)

    def residual_block(x, width, name):
        """[B, H, W, C] -> [B, H/2, W/2, width], activated before each convolution."""
        y = activate(x, f"{name}_1")
        y = layers.Conv(x.shape[-1], 3, padding=1, use_bias=layers.has_bias(norm), name=f"{name}_conv_1")(y)
        y = activate(y, f"{name}_2")
        y = layers.Conv(width, 3, padding=1, name=f"{name}_conv_2")(y)
        y = keras.layers.AveragePooling2D(2, name=f"{name}_pool")(y)
        shortcut = keras.layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
        shortcut = layers.Conv(width, 1, name=f"{name}_shortcut_conv")(shortcut)
        return keras.layers.Add(name=f"{name}_sum")([y, shortcut])

    image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    x = layers.Conv(filters, 4, stride=2, padding=1, name="first_conv")(image)  # [B, H/2, W/2, filters]
    for block in range(1, downsamplings):
        x = residual_block(x, filters * min(block + 1, 4), f"block_{block}")
    x = keras.layers.LeakyReLU(0.2, name="last_activation")(x)
    # The code is computed in the variables' dtype: bfloat16 would round it to 8 bits.
    dtype = layers.variable_dtype()
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="pool")(x)  # [B, C]
    codes = [keras.layers.Dense(latent_size, dtype=dtype, name=part)(x) for part in ("mean", "log_variance")]
    return keras.Model(image, codes, name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentNetworks:
    """Settings of a generator that takes a code, and of the encoder that finds it.

    Args:
      generator, encoder: of GENERATORS and ENCODERS.
      latent_size: numbers of a code.
      latent_at: the code is concatenated to what "all" downsampling layers see, or to the "input".
      generator_filters, encoder_filters: channels of the first layer; all others follow.
      norm, dropout, inference_norm: as of `models.pix2pix.Pix2Pix`; dropout is the generator's.
    """

    generator: str = "unet_256"
    encoder: str = "resnet_256"
    latent_size: int = 8
    latent_at: str = "all"
    generator_filters: int = 64
    encoder_filters: int = 64
    norm: str = "instance"
    dropout: bool = False
    inference_norm: str = "batch_statistics"

    def __post_init__(self):
        for name, known in (("generator", GENERATORS), ("encoder", ENCODERS), ("latent_at", LATENT_AT)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigurationError(
                    f"LatentNetworks.{name} = {value!r}: unknown; use one of {', '.join(known)}"
                )
        if self.latent_size < 1:
            raise ConfigurationError(
                f"LatentNetworks.latent_size = {self.latent_size}: must be at least 1; 8 is published"
            )

    def build(self, input_shape: Sequence[int], target_shape: Sequence[int]) -> dict[str, keras.Model]:
        """ "generator" and "encoder" for pictures [H, W, C].

        Raises:
          ConfigurationError: pictures of a size that they do not take.
        """
        self._check_size(*target_shape[:2])
        shared = {"latent_size": self.latent_size, "norm": self.norm, "inference_norm": self.inference_norm}
        return {
            "generator": latent_unet(
                name="generator",
                input_channels=input_shape[-1],
                output_channels=target_shape[-1],
                downsamplings=GENERATORS[self.generator],
                latent_at=self.latent_at,
                filters=self.generator_filters,
                dropout=self.dropout,
                **shared,
            ),
            "encoder": resnet_encoder(
                name="encoder",
                input_channels=target_shape[-1],
                downsamplings=ENCODERS[self.encoder],
                filters=self.encoder_filters,
                **shared,
            ),
        }

    def _check_size(self, height: int, width: int) -> None:
        multiple = 2 ** GENERATORS[self.generator]
        if height % multiple or width % multiple:
            raise ConfigurationError(
                f"{self.generator} does not take pictures of {height}x{width} pixels (height x width): both "
                f"must be multiples of {multiple}; crop or resize them, or choose one of: "
                f"{', '.join(GENERATORS)}"
            )
