"""From pictures through a network to the files of their translations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from data.errors import DataError
from data.pipeline import resizing
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.translator import Translator
from engine.pictures.comparison import comparison_strip, strip_ending
from engine.pictures.counterparts import Counterparts
from engine.pictures.picture_input import Picture
from engine.pictures.picture_output import RAW_EXTENSION, SHOWN, OutputFormat, raw_file
from engine.pictures.picture_paths import SourcePicture
from engine.pictures.trained_size import TrainedSize
from engine.tiling.seams import seam_ratio
from engine.tiling.tile_plan import TilePlan
from engine.translation.network_runner import NetworkInput, NetworkRunner
from engine.translation.picture_steps import Job, Loaded, Pixels, Translated
from engine.translation.tiled_runner import TiledRunner

_WAITING_PIXELS = 2**23  # of pictures that wait for others of their size, all together


class PictureTranslation:
    """Reads, translates and encodes pictures. `load` and `files` may be called in threads.

    Args:
      translator: the network.
      runner: runs it.
      size: to which pictures are resized, and outputs back; None leaves them.
      codes: of `latent_codes`.
      output: how outputs become files.
      compares: whether strips for comparison are made.
      targets: the wanted pictures, for these strips; None shows none.

    Attributes:
      tiled: runs the network on large pictures.
    """

    def __init__(
        self,
        translator: Translator,
        runner: NetworkRunner,
        *,
        size: TrainedSize | None,
        codes: Sequence[tf.Tensor | None],
        output: OutputFormat,
        compares: bool = False,
        targets: Counterparts | None = None,
    ):
        self._translator, self._runner, self.tiled = translator, runner, TiledRunner(runner)
        self._size, self._codes, self._output = size, codes, output
        self._compares, self._targets = compares, targets

    def load(self, job: Job) -> Loaded | Translated:
        """Reads a picture and what belongs to it; returns why that is impossible if it is."""
        try:
            picture = job.source.read(self._translator.input)
            maps = self._translator.side_maps
            side_map = None
            if maps is not None:
                side_map = maps.read(job.source.path, picture, name=job.source.name)
            target, notes = self._target(job.source)
        except (DataError, ConfigurationError) as error:
            return Translated(job=job, error=error)
        seen = NetworkInput(
            picture=_resized(picture, self._size),
            side_map=side_map
            and _resized(side_map, None if maps is None or self._size is None else maps.format.size),
            position=job.position,
        )
        if side_map is not None:
            notes += tuple(f"with a map {note}" for note in side_map.notes)
        return Loaded(job=job, picture=picture, seen=seen, target=target, notes=(*picture.notes, *notes))

    def _target(self, source: SourcePicture) -> tuple[Picture | None, tuple[str, ...]]:
        if self._targets is None:
            return None, ()
        try:
            path = self._targets.find(source.path, source.name)
        except DataError:
            return None, ("without a target, so its strip shows none",)
        return self._translator.output.read(path, keeps_alpha=True), ()

    def translate(self, pictures: Iterable[Loaded | Translated]) -> Iterator[Translated]:
        """Translates pictures: those of one size together, large ones in tiles.

        Args:
          pictures: in any order; what is refused already is passed on.

        Yields:
          A result for each, in another order.
        """
        waiting: dict[tuple, list[Loaded]] = {}
        for one in pictures:
            if isinstance(one, Translated):
                yield one
                continue
            try:
                plan = self.tiled.plan(*one.seen.size) if self._size is None else None
                size = self._runner.sizes.padded(*one.seen.size)
            except ConfigurationError as error:
                yield self._refused(one, error)
                continue
            if plan is not None:
                yield self._in_tiles(one, plan)
                continue
            picture = one.seen.picture
            key = (size, picture.pixels.dtype.name, picture.value_range)
            group = waiting.setdefault(key, [])
            group.append(one)
            if len(group) >= self._runner.batch(*size):
                yield from self._together(waiting.pop(key))
            elif sum(_pixels(group) for group in waiting.values()) > _WAITING_PIXELS:
                yield from self._together(waiting.pop(max(waiting, key=lambda key: _pixels(waiting[key]))))
        for group in waiting.values():
            yield from self._together(group)

    def _together(self, group: Sequence[Loaded]) -> Iterator[Translated]:
        """Translates pictures of one size; one by one if the network refuses one of them."""
        try:
            outputs = [self._runner.run([one.seen for one in group], code) for code in self._codes]
        except ConfigurationError as error:
            if len(group) == 1:
                yield self._refused(group[0], error)
            else:
                for one in group:
                    yield from self._together([one])
            return
        for one, of_codes in zip(group, zip(*outputs, strict=True), strict=True):
            yield Translated(job=one.job, loaded=one, outputs=of_codes)

    def _in_tiles(self, one: Loaded, plan: TilePlan) -> Translated:
        try:
            outputs = [self._pixels(one, self.tiled.bands(one.seen, plan, code)) for code in self._codes]
        except (ConfigurationError, NonFiniteOutputError) as error:
            return self._refused(one, error)
        factor = self._translator.factor
        ratios = [
            seam_ratio(
                next(iter(output.by_kind.values())),
                rows=[round(row * factor) for row in plan.row_borders],
                columns=[round(column * factor) for column in plan.column_borders],
            )
            for output in outputs
            if output.by_kind is not None
        ]
        return Translated(job=one.job, loaded=one, outputs=outputs, seam=max(ratios, default=1.0))

    def _refused(self, one: Loaded, error: Exception) -> Translated:
        """Adds the picture, and what can be done about its size, to an error about it."""
        if isinstance(error, ConfigurationError):
            can_resize = self._translator.input.size is not None and self._size is None
            hint = ", or add --resize=as_trained" if can_resize else ""
            error = ConfigurationError(f"{one.job.source.path}: {error}{hint}")
        return Translated(job=one.job, loaded=one, error=error)

    def _pixels(self, one: Loaded, bands: Iterable[np.ndarray]) -> Pixels:
        """Converts an output that comes some rows at a time, or at once.

        Raises:
          NonFiniteOutputError: a value is not finite.
        """
        shown: dict[str, list[np.ndarray]] = {}
        raw, channels = [], 0
        for band in bands:
            if not np.isfinite(band).all():
                raise NonFiniteOutputError(one.job.source.path)
            channels = band.shape[-1]
            if self._output.raw:
                raw.append(band)
            if self._output.is_picture(channels):
                rgb = self._translator.to_rgb(band)
                if self._size is not None:
                    height, width = one.picture.pixels.shape[:2]
                    rgb = self._size.undo(rgb, height=height, width=width)
                for kind, pixels in self._output.pixels(
                    rgb, input_dtype=one.picture.pixels.dtype.name
                ).items():
                    shown.setdefault(kind, []).append(pixels)
        return Pixels(
            by_kind={kind: _joined(parts) for kind, parts in shown.items()} or None,
            raw=_joined(raw) if raw else None,
            channels=channels,
        )

    def files(self, translated: Translated) -> tuple[list[dict[str, bytes]], tuple[str, ...]]:
        """Encodes the outputs of a picture.

        Returns:
          For each code, ending -> content of a file, the picture first; and notes for the user.

        Raises:
          ConfigurationError: an output is no picture, or its format cannot hold it.
          NonFiniteOutputError: an output is not finite.
        """
        one = translated.loaded
        assert one is not None, "a picture that is not refused was read"
        notes: tuple[str, ...] = one.notes
        made = []
        for output in translated.outputs:
            pixels = output if isinstance(output, Pixels) else self._pixels(one, [output])
            files: dict[str, bytes] = {}
            if pixels.by_kind is not None:
                files, lost = self._picture_files(one, pixels.by_kind)
                notes = (*one.notes, *lost)
            elif not self._output.raw:
                raise ConfigurationError(
                    f"{one.job.source.path}: the network's output has {pixels.channels} channels, so it "
                    "cannot be shown; add --raw for .npy files"
                )
            if pixels.raw is not None:
                files[RAW_EXTENSION] = raw_file(pixels.raw)
            made.append(files)
        return made, notes

    def _picture_files(
        self, one: Loaded, by_kind: dict[str, np.ndarray]
    ) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """The picture files of an output, and what they do not hold of it."""
        height, width, channels = next(iter(by_kind.values())).shape
        alpha = one.picture.alpha
        if alpha is not None and alpha.shape[:2] != (height, width):
            alpha = np.clip(resizing.resize(alpha, height=height, width=width), 0, 1)
        try:
            files = self._output.files(by_kind, alpha)
            if self._compares:
                files[strip_ending(self._output.format)] = comparison_strip(
                    one.picture, by_kind[SHOWN], one.target, format=self._output.format
                )
        except ConfigurationError as error:
            raise ConfigurationError(f"{one.job.source.path}: {error}") from error
        dtype = one.picture.pixels.dtype.name
        return files, tuple(self._output.losses(channels=channels, input_dtype=dtype, alpha=alpha))


def _resized(picture: Picture, size: TrainedSize | None) -> Picture:
    if size is None:
        return picture
    pixels = size.apply(picture.pixels, padding=picture.value_range[0])
    return dataclasses.replace(picture, pixels=pixels.numpy())


def _pixels(group: Iterable[Loaded]) -> int:
    return sum(one.seen.picture.pixels[..., 0].size for one in group)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
