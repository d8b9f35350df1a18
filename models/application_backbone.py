"""Networks of `keras.applications` that replicas can train, for images with any number of channels."""

from __future__ import annotations

import re
from collections import Counter

import keras
import numpy as np

from models.networks.application_input import ApplicationInput, input_format
from models.networks.efficientnet_v2_xl import deep_networks
from models.networks.keras_application import build_application
from models.networks.layers import image_input
from models.networks.norms import GlobalBatchNormalization
from models.weight_transfer import REPEAT, WeightTransfer, first_kernel

_PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)
RGB_CHANNELS = 3


def application_backbone(application: str, *, channels: int, input_channels: str, owner: str) -> keras.Model:
    """Builds an application without its top, for training by the engine, with random weights.

    It is a copy of Keras's network, layer by layer, with three differences. Batch norms are synchronised and
    leave out padding rows. Layers with names that Keras counts up get names that do not depend on what was
    built before. What the application expects of its images is a layer over images in [-1, 1] here.

    Args:
      application: name of an image classifier of `keras.applications`, or "EfficientNetV2XL".
      channels: of the images.
      input_channels: see `load_application_weights`; it also chooses the scale of each channel.
      owner: class with the setting, for error messages.

    Returns:
      "backbone": images [B, H, W, channels] in [-1, 1] -> activations [B, H', W', C].
    """
    original = build_application(application, weights=None, owner=owner, preprocesses=False)
    scale, offset, reverses = input_format(application)
    if channels != RGB_CHANNELS:
        sources = np.arange(channels) % RGB_CHANNELS
        is_repeated = input_channels == REPEAT
        scale, offset = (x[sources] if is_repeated else np.full(channels, x.mean()) for x in (scale, offset))
        reverses = False  # the kernel is turned instead
    image = image_input(channels)
    scaled = ApplicationInput(scale.tolist(), offset.tolist(), reverses, name="application_input")(image)
    with deep_networks():
        body = _trainable_copy(original, channels)
        return keras.Model(image, body(scaled), name="backbone")


def load_application_weights(
    backbone: keras.Model, application: str, *, weights: str, input_channels: str, owner: str
) -> None:
    """Sets the weights of a backbone to those of a trained application.

    Args:
      backbone: of `application_backbone`.
      application: as there.
      weights: "imagenet" downloads what Keras publishes; else the path of a file of weights without the top.
      input_channels: how the first convolution takes another number of channels than 3: see
        `models.weight_transfer.WeightTransfer`. A line on the console says so.
      owner: class with the setting `weights`, for error messages.

    Raises:
      ConfigurationError: there are no such weights, or they do not fit.
    """
    original = build_application(application, weights=weights, owner=owner, preprocesses=False)
    layers = [layer for layer in original.layers if not isinstance(layer, _PREPROCESSING)]
    arrays = [weight.numpy() for layer in layers for weight in layer.weights]
    body = backbone.get_layer("application")
    found = {weight.path: array for weight, array in zip(body.weights, arrays, strict=True)}
    first = first_kernel(body)
    has_other_channels = body.input_shape[-1] != RGB_CHANNELS
    if has_other_channels and input_format(application).reverses:
        found[first] = found[first][:, :, ::-1]  # [h, w, 3, out] of red, green, blue
    transfer = WeightTransfer(partial=has_other_channels, input_channels=input_channels)
    plan = transfer.plan(body, found, where=f"{application} ({weights})")
    plan.apply()
    if plan.adapted:
        print(f"{plan.where}: {plan.adapted_line()}")


def _trainable_copy(original: keras.Model, channels: int) -> keras.Model:
    """Copies an application, without weights; it takes images of a number of channels, preprocessed."""
    names = _names(original)

    def copy(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.Sequential):  # ConvNeXt's stem and downsampling
            return keras.Sequential([copy(each) for each in layer.layers], name=layer.name)
        if isinstance(layer, _PREPROCESSING):
            return keras.layers.Identity(name=layer.name)
        if type(layer).__name__ == "StochasticDepth":  # ConvNeXt's, whose randomness the engine cannot seed
            return keras.layers.Dropout(layer.drop_path_rate, noise_shape=(None, 1, 1, 1), name=layer.name)
        config = layer.get_config() | {"name": names.get(layer.name, layer.name)}
        if isinstance(layer, keras.layers.BatchNormalization):
            return GlobalBatchNormalization.from_config(config)
        return type(layer).from_config(config)

    inputs = keras.Input((None, None, channels), dtype=original.input.dtype, name="image")
    model = keras.models.clone_model(original, input_tensors=inputs, clone_function=copy)
    model.name = "application"
    return model


def _names(original: keras.Model) -> dict[str, str]:
    """New names of some layers, by the old ones.

    Keras counts up the names of layers without one, such as "conv2d_17", and the blocks of a stage by
    characters from "a" on. What comes after "z" no TensorFlow graph takes: after "block6z" comes "block6aa".
    """
    counts: Counter[str] = Counter()
    names = {}
    for layer in original.layers:
        names[layer.name] = "".join(c if c <= "z" else f"a{chr(ord(c) - 26)}" for c in layer.name)
        # As Keras makes a name of that of a class: Conv2D -> conv2d, DepthwiseConv2D -> depthwise_conv2d.
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
        if re.fullmatch(rf"{kind}(_\d+)?", layer.name):
            names[layer.name] = f"{kind}_{counts[kind]}"
            counts[kind] += 1
    return names
