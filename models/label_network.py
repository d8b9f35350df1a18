"""The network behind classification and regression: a backbone and a new head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from data.roles import INPUT, SIDE_VECTOR
from engine.errors import ConfigurationError, check_at_least
from models.application_backbone import application_backbone, load_application_weights
from models.networks.dropout import Dropout
from models.networks.keras_application import application_module
from models.networks.layers import variable_dtype
from models.networks.small_convnet import small_convnet
from models.weight_transfer import INPUT_CHANNELS, MEAN

SMALL = "small"

_MIN_SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
_MIN_SIZE = 32
"""Height and width in pixels that an application needs at least."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelNetwork:
    """Settings of a network from an image, and maybe a vector, to K numbers.

    The head averages the backbone's activations over the image, appends the side vector, and computes K
    outputs. Names of variables begin with the name of the network, then those of the backbone are Keras's:
    "classifier/block1a_project_conv/kernel". Those of the head are "classifier/head1/kernel" and so on, and
    "classifier/head/kernel", the last.

    Attributes:
      backbone: "small", a convolutional network from scratch; or an image classifier of `keras.applications`
        by its name, such as "EfficientNetV2S", "VGG16", "MobileNetV3Small" or "ConvNeXtTiny"; or
        "EfficientNetV2XL".
      weights: of an application, for a new run: "imagenet" downloads those that Keras publishes; else the
        path of a file of weights without the top; None leaves them random.
      input_channels: how the first convolution with such weights takes another number of channels than 3:
        "mean" or "repeat", see `models.weight_transfer.WeightTransfer`.
      filters: of the first stage of "small".
      stages: of "small": each halves the image.
      hidden_units: units of layers of the head before its last one, with ReLU.
      dropout: share of the head's inputs that are dropped.
      side_vector: append the side vector of each example to the head's inputs.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    backbone: str = SMALL
    weights: str | None = None
    input_channels: str = MEAN
    filters: int = 32
    stages: int = 4
    hidden_units: tuple[int, ...] = ()
    dropout: float = 0.2
    side_vector: bool = False

    def __post_init__(self) -> None:
        if self.backbone == SMALL and self.weights is not None:
            raise ConfigurationError(
                f"LabelNetwork.weights = {self.weights!r}: there are none of the backbone {SMALL!r}; name a "
                "network of keras.applications as LabelNetwork.backbone, or set None"
            )
        if self.backbone != SMALL:
            application_module(self.backbone, setting="LabelNetwork.backbone")
        if self.input_channels not in INPUT_CHANNELS:
            raise ConfigurationError(
                f"LabelNetwork.input_channels = {self.input_channels!r}: unknown; use one of "
                f"{', '.join(INPUT_CHANNELS)}"
            )
        check_at_least(1, of="LabelNetwork", filters=self.filters, stages=self.stages)
        for units in self.hidden_units:
            check_at_least(1, of="LabelNetwork", hidden_units=units)
        if not 0 <= self.dropout < 1:
            raise ConfigurationError(f"LabelNetwork.dropout = {self.dropout}: must lie in [0, 1); correct it")

    @property
    def side_inputs(self) -> tuple[str, ...]:
        """The features that the network takes beside the image."""
        return (SIDE_VECTOR,) if self.side_vector else ()

    def inputs(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor | list[tf.Tensor]:
        """What to call the network with: the images [B, H, W, C], or a list of them and the vectors."""
        others = [batch[name] for name in self.side_inputs]
        return [batch[INPUT], *others] if others else batch[INPUT]

    def build(
        self,
        example: Mapping[str, tf.TensorSpec],
        *,
        outputs: int,
        name: str,
        last: Callable[[keras.KerasTensor], keras.KerasTensor] = lambda x: x,
    ) -> keras.Model:
        """Builds the network, with random weights.

        Args:
          example: shapes of the features of one example: the image [H, W, C], the side vector [V].
          outputs: K.
          name: of the network.
          last: layers after the head, [B, K] -> [B, K].

        Raises:
          ConfigurationError: the images are too small, or the data has no side vector.
        """
        self._check(example)
        channels = example[INPUT].shape[-1]
        if self.backbone == SMALL:
            backbone = small_convnet(channels=channels, filters=self.filters, stages=self.stages)
        else:
            backbone = application_backbone(
                self.backbone, channels=channels, input_channels=self.input_channels, owner="LabelNetwork"
            )
        image = keras.Input((None, None, channels), dtype=variable_dtype(), name="image")
        inputs = [image]
        x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(image))  # [B, F]
        if self.side_vector:
            vector = keras.Input(example[SIDE_VECTOR].shape, dtype=variable_dtype(), name=SIDE_VECTOR)
            inputs.append(vector)
            x = keras.layers.Concatenate(name="side_vector_concatenation")([x, vector])  # [B, F + V]
        if self.dropout:
            x = Dropout(self.dropout, name="head_dropout")(x)
        for number, units in enumerate(self.hidden_units, 1):
            x = keras.layers.Dense(
                units, activation="relu", kernel_initializer="he_normal", name=f"head{number}"
            )(x)
        x = keras.layers.Dense(outputs, dtype=variable_dtype(), name="head")(x)  # [B, K]
        return keras.Model(inputs if self.side_vector else image, last(x), name=name)

    def load_weights(self, network: keras.Model) -> None:
        """Sets the weights of the backbone of a network to those of `weights`, if there are any.

        Raises:
          ConfigurationError: there are no such weights, or they do not fit.
        """
        if self.weights is not None:
            load_application_weights(
                network.get_layer("backbone"),
                self.backbone,
                weights=self.weights,
                input_channels=self.input_channels,
                owner="LabelNetwork",
            )

    def _check(self, example: Mapping[str, tf.TensorSpec]) -> None:
        height, width, _ = example[INPUT].shape
        least = 2**self.stages if self.backbone == SMALL else _MIN_SIZES.get(self.backbone, _MIN_SIZE)
        if min(height, width) < least:
            raise ConfigurationError(
                f"CROP_SIZE: images of {height}x{width} pixels are too small for the backbone "
                f"{self.backbone!r}, which needs {least}x{least}; raise it"
            )
        if self.side_vector and SIDE_VECTOR not in example:
            raise ConfigurationError(
                "LabelNetwork.side_vector = True: the data set has no 'side_vector'; prepare it with "
                "--side_vector or --side_classes, or set False"
            )
