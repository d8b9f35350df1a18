"""The latent codes of the outputs for a picture."""

from __future__ import annotations

import os

import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError
from engine.inference.translator import Translator
from engine.pictures.trained_size import TrainedSize


def latent_codes(
    translator: Translator,
    size: TrainedSize | None,
    *,
    samples: int | None,
    seed: int,
    code_from: str | None,
) -> list[tf.Tensor | None]:
    """Chooses the latent code of each output for a picture.

    Args:
      translator: the network.
      size: to which pictures are resized; None leaves them.
      samples: number of random codes, the same for all pictures.
      seed: of these codes.
      code_from: a picture such as the outputs, whose code is the only one.

    Returns:
      Codes [1, latent_size]; or [None], for the task's default.

    Raises:
      ConfigurationError: the networks take no code.
      data.errors.DataError: the picture cannot be used.
    """
    for name, value in (("samples", samples), ("code_from", code_from)):
        can = translator.latent_size if name == "samples" else translator.encode
        if value is not None and not can:
            raise ConfigurationError(
                f"--{name}={value}: the run's networks take no code, so they have one output for a picture; "
                "leave it out"
            )
    if samples is not None:
        shape = [1, translator.latent_size]
        return [tf.random.stateless_normal(shape, seed=(seed, number)) for number in range(samples)]
    if code_from is None or translator.encode is None:
        return [None]
    path = os.path.expanduser(code_from)
    picture = translator.output.read(path)
    low, high = picture.value_range
    pixels = picture.pixels if size is None else size.apply(picture.pixels, padding=low)
    try:
        translator.check_size(*pixels.shape[:2])
    except ConfigurationError as error:
        raise ConfigurationError(f"--code_from={path}: {error}") from error
    return [translator.encode(imaging.range_to_signed(pixels, low=low, high=high)[tf.newaxis])]
