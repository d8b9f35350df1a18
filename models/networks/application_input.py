"""What each network of `keras.applications` expects of its images, as a layer over images in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from models.networks.keras_application import application_module
from models.networks.layers import at_least_float32

_MEAN, _STDDEV = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Of ImageNet's red, green and blue in [0, 1]."""

_STANDARDISED = ("EfficientNetB", "EfficientNetV2B", "ConvNeXt")
_SIGNED = ("MobileNetV3",)
_OF_128 = ("EfficientNetV2",)  # S, M, L and XL: x / 128 - 1 of 8-bit values
"""Applications that preprocess images themselves, whose `preprocess_input` changes nothing."""


class InputFormat(NamedTuple):
    """How an application takes images; for images x in [-1, 1], as scale * x + offset.

    Attributes:
      scale: of red, green and blue, [3].
      offset: likewise, in the units that the application sees.
      reverses: whether it takes blue, green and red, in this order.
    """

    scale: np.ndarray
    offset: np.ndarray
    reverses: bool = False


def input_format(application: str) -> InputFormat:
    """The images that an application was trained on.

    Args:
      application: name of an image classifier of `keras.applications`.
    """
    if application.startswith(_STANDARDISED):  # ((x + 1) / 2 - mean) / stddev
        return InputFormat(0.5 / _STDDEV, (0.5 - _MEAN) / _STDDEV)
    if application.startswith(_SIGNED):
        return InputFormat(np.ones(3), np.zeros(3))
    if application.startswith(_OF_128):
        return InputFormat(np.full(3, 127.5 / 128), np.full(3, 127.5 / 128 - 1))
    # Keras's own function maps each channel affinely, and may reverse their order: it is probed.
    preprocess = application_module(application, setting="application").preprocess_input
    probe = np.concatenate([np.zeros([1, 3]), 255.0 * np.eye(3)])[:, np.newaxis, np.newaxis]
    black, *colours = preprocess(probe.astype(np.float64))[:, 0, 0]  # [3] each
    matrix = np.array(colours) - black  # [colour, output channel]
    reverses = not matrix[0, 0]
    order = slice(None, None, -1 if reverses else 1)
    span, black = matrix.sum(axis=0)[order], black[order]  # of red, green and blue
    return InputFormat(span / 2, black + span / 2, reverses)


@keras.saving.register_keras_serializable(package="gantry")
class ApplicationInput(keras.layers.Layer):
    """Scales and shifts the channels of images: [B, H, W, C] -> the same shape.

    Args:
      scale: factor of each channel, [C].
      offset: added to each channel then, [C].
      reverses: reverses the order of the channels at the end.
      **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(
        self, scale: Sequence[float], offset: Sequence[float], reverses: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.scale = [float(x) for x in scale]
        self.offset = [float(x) for x in offset]
        self.reverses = reverses

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> the same shape in the compute dtype."""
        x = at_least_float32(images)
        x = x * tf.constant(self.scale, x.dtype) + tf.constant(self.offset, x.dtype)
        return tf.cast(x[..., ::-1] if self.reverses else x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Keras calls it for symbolic inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"scale": self.scale, "offset": self.offset, "reverses": self.reverses}
        return {**super().get_config(), **own}
