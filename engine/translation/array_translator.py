"""A network as a function from pictures in memory to arrays, for notebooks and other programs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data import imaging
from data.pipeline import resizing
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.translator import Translator
from engine.pictures.given_pictures import (
    ValueRange,
    are_several,
    in_form_of,
    is_array,
    named_pictures,
    take_picture,
)
from engine.pictures.picture_input import Picture
from engine.pictures.role_format import RoleFormat
from engine.pictures.trained_size import AS_TRAINED, NONE, RESIZES, TrainedSize
from engine.translation.limits import Limits
from engine.translation.network_runner import NetworkInput, NetworkRunner
from engine.translation.tiled_runner import TiledRunner

_RANGES: dict[str, ValueRange] = {"uint8": (0, 255), "uint16": (0, 65535), "float32": (-1, 1)}
DTYPES = tuple(_RANGES)
"""What the dtype of a result may be."""


@dataclasses.dataclass(frozen=True)
class _Item:
    """A picture on its way through the network.

    Attributes:
      name: in errors.
      picture: as it was given.
      seen: what the network sees of it.
      code: [1, Z]; None for the task's default.
    """

    name: str
    picture: Picture
    seen: NetworkInput
    code: tf.Tensor | None

    def fits(self, other: _Item) -> bool:
        """Whether both can be in one batch."""
        ours, theirs = self.seen.picture, other.seen.picture
        return (
            ours.pixels.shape == theirs.pixels.shape
            and (ours.pixels.dtype, ours.value_range) == (theirs.pixels.dtype, theirs.value_range)
            and _is_same(self.code, other.code)
        )


class ArrayTranslator:
    """Translates pictures that a program holds, or names by their paths.

    A picture is a path, a Pillow image, or an array or tensor [H, W, C] or [H, W]. It is converted as one
    from a file is: grey becomes colour, and values keep the meaning that they had in training.

    Any size is taken: pictures are padded to what the network needs, and cropped back. Those that do not fit
    into the memory are translated in tiles, which are blended.

    Args:
      translator: the network.
      limits: how much is computed at once.
    """

    def __init__(self, translator: Translator, limits: Limits):
        self._translator = translator
        self._runner = NetworkRunner(translator, limits, with_codes=bool(translator.latent_size))
        self._tiled = TiledRunner(self._runner)
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<{self._translator.description}>"

    @property
    def latent_size(self) -> int:
        """Numbers of a latent code; 0 if the network takes none."""
        return self._translator.latent_size

    def translate(
        self,
        pictures: Any,
        *,
        value_range: ValueRange | None = None,
        dtype: str | None = None,
        resize: str = NONE,
        code: Any = None,
        side_map: Any = None,
    ) -> Any:
        """Translates a picture, or several.

        What is unusual about pictures, such as grey ones where training had colour, is printed once.

        Args:
          pictures: a picture; a list of pictures of any sizes; or an array or tensor [B, H, W, C].
          value_range: the values of arrays that are black and white, such as (0, 1) or (-1, 1). None is 0 and
            255 for uint8, and 0 and 65535 for uint16, or the value range of the data set if that has another
            one. Arrays of floats need it.
          dtype: of the result: "uint8" [0, 255], "uint16" [0, 65535] or "float32" [-1, 1]. None is that of
            the training targets, with their values: uint8 mostly; uint16 too if the picture has 16 bits.
          resize: "none", or "as_trained", which resizes a picture to the size of the training, as in
            evaluation, and the result back.
          code: for networks that take a latent code: [Z] for all pictures, or [B, Z]. None is the task's
            default.
          side_map: for networks that take a map: one for each picture, in the same form as `pictures`.

        Returns:
          An array [H', W', C'] for one picture, a list of these for a list, [B, H', W', C'] for a batch.
          Transparency that the network does not take is carried over as a further channel.

        Raises:
          ConfigurationError: an argument is wrong, or the network does not take a picture of that size.
          data.errors.DataError: a picture cannot be read, or the network cannot take it.
          engine.errors.NonFiniteOutputError: an output is not finite.
        """
        self._check(dtype, side_map)
        size = self._size(resize)
        items = self._items(pictures, side_map, code, value_range, size)
        results = [
            _values(item, output, (dtype, _RANGES[dtype]) if dtype else self._usual_format(item), size)
            for batch in self._batches(items)
            for item, output in zip(batch, self._run(batch), strict=True)
        ]
        return in_form_of(pictures, results)

    def encode(
        self, pictures: Any, *, value_range: ValueRange | None = None, resize: str = NONE
    ) -> np.ndarray:
        """Computes the latent codes of pictures such as the network makes.

        Args:
          pictures: as of `translate`.
          value_range: likewise.
          resize: likewise.

        Returns:
          float32 [Z] for one picture, [B, Z] for several.

        Raises:
          ConfigurationError: the network takes no codes; and as of `translate`.
          data.errors.DataError: as of `translate`.
        """
        translator = self._translator
        if translator.encode is None:
            raise ConfigurationError("encode: the run's networks take no code; train BicycleGAN for that")
        size = self._size(resize)
        codes = []
        for name, given in named_pictures(pictures):
            picture = _resized(self._picture(name, given, translator.output, value_range), size)
            low, high = picture.value_range
            with _naming(name):
                translator.check_size(*picture.pixels.shape[:2])
            image = imaging.range_to_signed(picture.pixels, low=low, high=high)[tf.newaxis]
            codes.append(np.asarray(translator.encode(image)[0], np.float32))  # [Z]
        return np.stack(codes) if are_several(pictures) else codes[0]

    def _check(self, dtype: str | None, side_map: Any) -> None:
        """Raises ConfigurationError for arguments that cannot be used."""
        if dtype not in (None, *DTYPES):
            raise ConfigurationError(f"dtype = {dtype!r}: unknown; use one of {', '.join(DTYPES)}, or None")
        if side_map is not None and self._translator.side_maps is None:
            raise ConfigurationError("side_map: the run's networks take none; leave it out")
        if side_map is None and self._translator.side_maps is not None:
            raise ConfigurationError("no side_map given, which the run's networks take: one for each picture")

    def _size(self, resize: str) -> TrainedSize | None:
        """To which size pictures are resized; None leaves them."""
        if resize not in RESIZES:
            raise ConfigurationError(f"resize = {resize!r}: unknown; use one of {', '.join(RESIZES)}")
        return self._translator.input.size if resize == AS_TRAINED else None

    def _items(
        self,
        pictures: Any,
        side_map: Any,
        code: Any,
        value_range: ValueRange | None,
        size: TrainedSize | None,
    ) -> Iterator[_Item]:
        """Reads the pictures one by one, each with its map and its code."""
        given = named_pictures(pictures)
        codes = self._codes(code, len(given))
        maps = [] if side_map is None else named_pictures(side_map, what="side_map")
        if maps and len(maps) != len(given):
            raise ConfigurationError(f"side_map: {len(maps)} for {len(given)} pictures; give one for each")
        for number, (name, one) in enumerate(given):
            picture = self._picture(name, one, self._translator.input, value_range)
            beside = self._map(*maps[number], picture, value_range, size) if maps else None
            seen = NetworkInput(picture=_resized(picture, size), side_map=beside, position=number)
            yield _Item(name, picture, seen, codes[number])

    def _picture(self, name: str, given: Any, format: RoleFormat, value_range: ValueRange | None) -> Picture:
        """A picture as the network takes it; prints what is unusual, once."""
        picture = take_picture(given, format, name=name, value_range=value_range)
        for note in set(picture.notes) - self._told:
            print(f"note: {name} is {note}")
        self._told.update(picture.notes)
        return picture

    def _map(
        self,
        name: str,
        given: Any,
        picture: Picture,
        value_range: ValueRange | None,
        size: TrainedSize | None,
    ) -> Picture:
        """The map of a picture, of its size."""
        assert self._translator.side_maps is not None, "checked before"
        format = self._translator.side_maps.format
        found = self._picture(name, given, format, value_range if is_array(given) else None)
        if found.pixels.shape[:2] != picture.pixels.shape[:2]:
            raise ConfigurationError(
                f"{name}: is a map of {found.pixels.shape[1]}x{found.pixels.shape[0]} for a picture of "
                f"{picture.pixels.shape[1]}x{picture.pixels.shape[0]}; give both the same size"
            )
        return _resized(found, None if size is None else format.size)

    def _codes(self, code: Any, count: int) -> list[tf.Tensor | None]:
        """The code [1, Z] of each picture; None for the task's default."""
        if code is None:
            return [None] * count
        if not self.latent_size:
            raise ConfigurationError("code: the run's networks take none; leave it out")
        codes = np.asarray(code, np.float32)
        if (
            codes.shape not in ((self.latent_size,), (count, self.latent_size))
            or not np.isfinite(codes).all()
        ):
            raise ConfigurationError(
                f"code: has the shape {list(codes.shape)}; give finite numbers [{self.latent_size}], or "
                f"[{count}, {self.latent_size}] for each picture its own"
            )
        return [code[tf.newaxis] for code in tf.constant(np.broadcast_to(codes, (count, self.latent_size)))]

    def _batches(self, items: Iterable[_Item]) -> Iterator[list[_Item]]:
        """Groups successive items that fit, as many as the network takes at once."""
        batch: list[_Item] = []
        for item in items:
            if batch and (not item.fits(batch[0]) or len(batch) == self._at_once(batch[0])):
                yield batch
                batch = []
            batch.append(item)
        yield batch

    def _at_once(self, item: _Item) -> int:
        """How many such pictures the network takes at once."""
        with _naming(item.name):
            return self._runner.batch(*self._runner.sizes.padded(*item.seen.size))

    def _run(self, batch: Sequence[_Item]) -> Sequence[tf.Tensor]:
        """The network's outputs for pictures of one size, each [H', W', C] in [-1, 1] (RGB)."""
        first = batch[0]
        with _naming(first.name):
            plan = self._tiled.plan(*first.seen.size)
            if plan is None:
                outputs = self._runner.run([item.seen for item in batch], first.code)
            else:
                outputs = [
                    np.concatenate(list(self._tiled.bands(item.seen, plan, item.code))) for item in batch
                ]
        for item, output in zip(batch, outputs, strict=True):
            if not np.isfinite(output).all():
                raise NonFiniteOutputError(item.name)
        return [self._translator.to_rgb(tf.convert_to_tensor(output)) for output in outputs]

    def _usual_format(self, item: _Item) -> tuple[str, ValueRange]:
        """Dtype and values of the training targets, as `engine.translate` writes them."""
        trained = self._translator.output.stored
        if trained is not None and (trained.dtype, tuple(trained.value_range)) != ("uint8", _RANGES["uint8"]):
            return trained.dtype, trained.value_range
        dtype = "uint16" if item.picture.pixels.dtype == np.uint16 else "uint8"
        return dtype, _RANGES[dtype]


def _values(
    item: _Item, output: tf.Tensor, format: tuple[str, ValueRange], size: TrainedSize | None
) -> np.ndarray:
    """An output [H', W', C] in [-1, 1] with the values of a format, at the size of the picture."""
    if size is not None:
        height, width = item.picture.pixels.shape[:2]
        output = size.undo(output, height=height, width=width)
    if item.picture.alpha is not None:
        height, width = output.shape[:2]
        alpha = resizing.resize(item.picture.alpha, height=height, width=width)
        output = tf.concat([output, tf.clip_by_value(alpha, 0, 1) * 2 - 1], axis=-1)
    dtype, (low, high) = format
    return imaging.signed_to_range(output, low=low, high=high, dtype=tf.as_dtype(dtype)).numpy()


def _resized(picture: Picture, size: TrainedSize | None) -> Picture:
    """The picture at the size of the training, if there is one."""
    if size is None:
        return picture
    pixels = size.apply(picture.pixels, padding=picture.value_range[0]).numpy()
    return dataclasses.replace(picture, pixels=pixels)


def _is_same(code: tf.Tensor | None, other: tf.Tensor | None) -> bool:
    return code is other or (code is not None and other is not None and np.array_equal(code, other))


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Adds the picture to errors about its size."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
