"""Translating pictures with a generator that the PyTorch reference saved."""

from __future__ import annotations

import functools

import tensorflow as tf

from engine.distribution.devices import make_devices
from engine.distribution.precision import set_precision
from engine.inference.batch_function import BatchFunction
from engine.inference.norm_mode import check_norm_mode, set_norm_mode
from engine.inference.translator import Translator
from engine.pictures.role_format import RoleFormat
from models.networks.generators import check_image_size
from models.pytorch.weights import load_generator


def translator_of_torch_file(path: str, *, network: str | None, norm_mode: str | None) -> Translator:
    """Loads a generator that the reference saved; see `models.pytorch.weights.load_generator`.

    Args:
      path: the .pth file.
      network: the architecture it must have; None takes whatever the file holds.
      norm_mode: one of `models.networks.norms.INFERENCE_NORMS`; None is "batch_statistics", as in the
        reference's test program.

    Raises:
      ConfigurationError: the file or an argument cannot be used.
    """
    check_norm_mode(norm_mode)
    set_precision("float32")
    norm_mode = norm_mode or "batch_statistics"
    devices = make_devices("mirrored")  # all GPUs, or the CPU
    with devices.strategy.scope():
        name, model = load_generator(path, network=network, inference_norm=norm_mode)

    latent_size = model.inputs[1].shape[-1] if len(model.inputs) > 1 else 0

    def translate(
        pictures: tf.Tensor, maps: None, codes: tf.Tensor | None = None, positions: None = None
    ) -> tf.Tensor:
        del maps, positions
        if not latent_size:
            return model(pictures, training=False)
        if codes is None:
            codes = tf.zeros([tf.shape(pictures)[0], latent_size])
        return model([pictures, codes], training=False)

    compiled = BatchFunction(translate, devices=devices)
    input_channels, output_channels = model.inputs[0].shape[-1], model.output_shape[-1]
    return Translator(
        description=f"{name} of {path}, {input_channels} -> {output_channels} channels, "
        + set_norm_mode([model], norm_mode),
        input=RoleFormat(channels=input_channels),
        output=RoleFormat(channels=output_channels),
        check_size=functools.partial(check_image_size, name),
        translate=compiled,
        compiled=compiled,
        latent_size=latent_size,
    )
