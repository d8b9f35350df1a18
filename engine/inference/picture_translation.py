"""From a picture through a network to the files of its translations."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.picture_input import Picture
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
    pixels = _network_input(translator.output.read(path), size)
    with _reraise_size_errors(path, translator, size):
        translator.check_size(*pixels.shape[1:3])
    return [translator.encode(pixels)]


def _network_input(picture: Picture, size: TrainedSize | None) -> tf.Tensor:
    """The picture as [1, H, W, C] in [-1, 1], resized to `size` unless that is None."""
    low, high = picture.value_range
    pixels = picture.pixels if size is None else size.apply(picture.pixels, padding=low)
    return imaging.range_to_signed(pixels, low=low, high=high)[tf.newaxis]


@contextlib.contextmanager
def _reraise_size_errors(path: str, translator: Translator, size: TrainedSize | None) -> Iterator[None]:
    """Adds the picture, and what can be done about its size, to errors about it."""
    try:
        yield
    except ConfigurationError as error:
        hint = ", or add --resize=as_trained" if translator.input.size is not None and size is None else ""
        raise ConfigurationError(f"{path}: {error}{hint}") from error


def translated_files(
    path: str,
    picture: Picture,
    side_map: Picture | None,
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
      side_map: its map; None if the network takes none.
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
    inputs, maps = _network_input(picture, size), None
    if side_map is not None and translator.side_maps is not None:
        maps = _network_input(side_map, None if size is None else translator.side_maps.format.size)
    with _reraise_size_errors(path, translator, size):
        translator.check_size(*inputs.shape[1:3])
    for code in codes:
        with _reraise_size_errors(path, translator, size):
            translated = translator.translate(inputs, maps, code)[0]  # [H, W, C]
        translated = tf.cast(translated, tf.float32)
        if not np.all(np.isfinite(translated)):
            raise NonFiniteOutputError(path)
        files: dict[str, bytes] = {}
        if is_picture(translated.shape[-1], translator.output.stored):
            rgb = translator.to_rgb(translated)
            if size is not None:
                height, width = picture.pixels.shape[:2]
                rgb = size.undo(rgb, height=height, width=width)
            files = picture_files(
                rgb, trained=translator.output.stored, input_dtype=picture.pixels.dtype.name
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
