"""Builds an image classifier of `keras.applications` with downloaded weights, or with those of a file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from models.networks.efficientnet_v2_xl import efficientnet_v2_xl

EFFICIENTNET_V2_XL = "EfficientNetV2XL"
"""The one application that is not Keras's; it has no published weights in Keras's format."""

_PREPROCESSING = ("EfficientNetV2", "MobileNetV3", "ConvNeXt")
"""Applications that preprocess images themselves, unless they are told not to."""


def application_module(application: str, *, setting: str) -> Any:
    """Returns the module of an application, which also has its `preprocess_input`.

    Args:
      application: name of the function that builds it, such as "VGG19".
      setting: names the application, for error messages.

    Raises:
      ConfigurationError: there is no such image classifier.
    """
    build = _builder(application)
    module = sys.modules.get(getattr(build, "__module__", ""))
    if application == EFFICIENTNET_V2_XL:
        module = keras.applications.efficientnet_v2
    if not hasattr(module, "preprocess_input"):
        raise ConfigurationError(
            f"{setting} = {application!r}: not an image classifier of keras.applications; use one such as "
            "'VGG19' or 'MobileNetV2'"
        )
    return module


def build_application(
    application: str,
    *,
    weights: str | None,
    owner: str,
    image_size: int | None = None,
    preprocesses: bool = True,
    **arguments: Any,
) -> keras.Model:
    """Builds an application without its top.

    Args:
      application: name of the function that builds it.
      weights: "imagenet" downloads the weights that Keras publishes; else the path of a file of weights
        without the top; None leaves them random.
      owner: class with the setting `weights`, for error messages.
      image_size: height and width of its images in pixels; None for any.
      preprocesses: whether applications that can preprocess images themselves do so.
      **arguments: further ones of the application.

    Raises:
      ConfigurationError: there are no such weights, or they do not fit.
    """
    if weights not in (None, "imagenet") and not _is_file(weights):
        raise ConfigurationError(
            f"{owner}.weights = {weights!r}: there is no such file; give the path of a file of weights of "
            f"{application}, or 'imagenet' to download them"
        )
    if (application, weights) == (EFFICIENTNET_V2_XL, "imagenet"):
        raise ConfigurationError(
            f"{owner}.weights = {weights!r}: Keras publishes none of {application}; give a file, or None"
        )
    build = _builder(application)
    if not preprocesses and application.startswith(_PREPROCESSING):
        arguments["include_preprocessing"] = False
    try:
        with _copy_to_disk(weights) as path:
            return build(
                include_top=False, weights=path, input_shape=(image_size, image_size, 3), **arguments
            )
    except Exception as error:  # Keras raises plain Exception when a download fails
        raise ConfigurationError(
            f"{owner}: {application} with weights {weights!r} cannot be built: "
            f"{' '.join(str(error).split())[:300]}; give a file of its weights without the top"
        ) from error


def _builder(application: str) -> Any:
    """The function that builds an application; None if there is none."""
    if application == EFFICIENTNET_V2_XL:
        return efficientnet_v2_xl
    return getattr(keras.applications, application, None)


def _is_file(path: str | None) -> bool:
    try:
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
    except tf.errors.OpError:  # TensorFlow knows no such file system
        return False


@contextlib.contextmanager
def _copy_to_disk(weights: str | None) -> Iterator[str | None]:
    """Gives the path of the weights, or of a copy if they are in an object store (gs://, ...)."""
    if weights is None or "://" not in weights:
        yield weights
        return
    # Keras reads weights from a disk only.
    with tempfile.TemporaryDirectory(prefix="gantry_weights_") as folder:
        copy = os.path.join(folder, os.path.basename(weights))
        tf.io.gfile.copy(weights, copy)
        yield copy
