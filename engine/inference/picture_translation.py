"""From a picture through a network to the files of its translations."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.picture_input import Picture, read_picture
from engine.inference.picture_output import is_picture, picture_files
from engine.inference.trained_size import TrainedSize
from engine.inference.translator import Translator


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
        if value is not None and translator.encode is None:
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
    picture = read_picture(path, channels=translator.output_channels, trained=translator.output_format)
    return [translator.encode(_network_input(path, picture, translator, size))]


def _network_input(
    path: str, picture: Picture, translator: Translator, size: TrainedSize | None
) -> tf.Tensor:
    """The picture as [1, H, W, C] in [-1, 1], resized to `size` unless that is None."""
    low, high = picture.value_range
    pixels = picture.pixels if size is None else size.apply(picture.pixels, padding=low)
    height, width = pixels.shape[:2]
    try:
        translator.check_size(height, width)
    except ConfigurationError as error:
        hint = ", or add --resize=as_trained" if translator.size is not None and size is None else ""
        raise ConfigurationError(f"{path}: {error}{hint}") from error
    return imaging.range_to_signed(pixels, low=low, high=high)[tf.newaxis]


def translated_files(
    path: str,
    picture: Picture,
    translator: Translator,
    size: TrainedSize | None,
    codes: Sequence[tf.Tensor | None],
    *,
    raw: bool,
) -> Iterator[dict[str, bytes]]:
    """Translates a picture with each code.

    Args:
      path: named in errors.
      picture: to translate.
      translator: the network.
      size: to which the picture is resized, and the output back; None leaves it.
      codes: as of `latent_codes`.
      raw: also the network's output itself.

    Yields:
      Extension -> content of the files of a translation; the picture comes first.

    Raises:
      ConfigurationError: the network cannot take its size, or the output is no picture.
      NonFiniteOutputError: the output is not finite.
    """
    inputs = _network_input(path, picture, translator, size)
    for code in codes:
        translated = tf.cast(translator.translate(inputs, code)[0], tf.float32)  # [H, W, C]
        if not np.all(np.isfinite(translated)):
            raise NonFiniteOutputError(path)
        files: dict[str, bytes] = {}
        if is_picture(translated.shape[-1], translator.output_format):
            rgb = translator.to_rgb(translated)
            if size is not None:
                height, width = picture.pixels.shape[:2]
                rgb = size.undo(rgb, height=height, width=width)
            files = picture_files(
                rgb, trained=translator.output_format, input_dtype=picture.pixels.dtype.name
            )
        elif not raw:
            raise ConfigurationError(
                f"{path}: the network's output has {translated.shape[-1]} channels, so it cannot be shown; "
                "add --raw for .npy files"
            )
        if raw:
            array = io.BytesIO()
            np.save(array, translated.numpy())
            files[".npy"] = array.getvalue()
        yield files
