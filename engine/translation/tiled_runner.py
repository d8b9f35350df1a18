"""Runs a network on large pictures, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from data.imaging import OneHot
from engine.tiling.blending import Disagreement, Joined
from engine.tiling.context_radius import context_radius
from engine.tiling.tile_plan import TilePlan, plan_tiles
from engine.translation.network_runner import NetworkInput, NetworkRunner

_SMALLEST_TILE, _LARGEST_TILE = 128, 2048  # pixels, of those that are chosen by memory
_Noise = Callable[[np.random.Generator, int, int], np.ndarray]

_WIDE_OVERLAP = 64  # pixels, where every output depends on the whole picture


class TiledRunner:
    """Runs a network on pictures for which its memory is too small.

    Args:
      runner: of the same network; its limits say which pictures are large.

    Attributes:
      disagreement: how far tiles differ where they overlap, before they are blended.
      radius: the receptive radius of the network in pixels; None if that is the whole picture, or if nothing
        was tiled yet.
    """

    def __init__(self, runner: NetworkRunner):
        self._runner = runner
        self._tile_and_overlap = (0, 0)
        self._multiple: int | None = None
        self.radius: int | None = None
        self.disagreement = Disagreement()

    @property
    def description(self) -> str:
        """How pictures were cut, for the console."""
        tile, overlap = self._tile_and_overlap
        if self.radius is None:
            needs = "every output depends on the whole picture"
        elif overlap >= self.radius:
            needs = f"the network needs {self.radius}, so the result is that of the whole picture"
        else:
            needs = f"the network needs {self.radius}"
        differ = ""
        if self.disagreement.count and (self.radius is None or overlap < self.radius):
            levels = self.disagreement.mean * 127.5
            differ = (
                f"; tiles differ by {levels:.1f} of 255 levels where they are blended, larger ones by less"
            )
        return f"of {tile} pixels with an overlap of {overlap} ({needs}{differ})"

    def plan(self, height: int, width: int) -> TilePlan | None:
        """The tiles of a picture; None if it is translated whole.

        Raises:
          ConfigurationError: the network takes no such size, or the overlap leaves nothing of a tile.
        """
        runner, tile = self._runner, self._runner.limits.tile
        if tile == 0:
            return None
        padded = runner.sizes.padded(height, width)
        if tile is None:
            fitting = runner.pixels_at_once(*padded)
            if math.prod(padded) <= fitting:
                return None
            tile = min(max(int(math.sqrt(fitting)), _SMALLEST_TILE), _LARGEST_TILE)
            tile = max(tile, 2 * self._measured_multiple())  # so that tiles can overlap
        if max(height, width) <= tile:
            return None
        multiple = self._measured_multiple()
        tile = max(multiple, tile // multiple * multiple)
        overlap = self._overlap(tile, multiple)
        self._tile_and_overlap = tile, overlap
        size = (-(-length // multiple) * multiple for length in (height, width))
        plan = plan_tiles(*size, tile=tile, overlap=overlap, multiple=multiple)
        return plan if plan.tiles > 1 else None

    def bands(self, one: NetworkInput, plan: TilePlan, code: tf.Tensor | None) -> Iterator[np.ndarray]:
        """Translates a picture.

        Args:
          one: the picture.
          plan: its tiles.
          code: [1, latent_size]; None for the task's default.

        Yields:
          The output of the network from top to bottom, some rows at a time: float32 [rows, f W, C].
        """
        factor = self._runner.translator.factor
        height, width = (round(length * factor) for length in one.size)
        padded = one.padded(plan.rows[-1] + plan.height, plan.columns[-1] + plan.width)
        joined = self._joined(axis=0)
        given = 0  # rows
        for top in plan.rows:
            band = joined.add(round(top * factor), self._strip(padded, top, plan, code)[:, :width])
            if band is not None:
                given += len(band)
                yield band
        yield joined.rest()[: height - given]

    def _strip(self, one: NetworkInput, top: int, plan: TilePlan, code: tf.Tensor | None) -> np.ndarray:
        """The output of a row of tiles: [f plan.height, f W, C]."""
        translator = self._runner.translator
        rows, at_once = slice(top, top + plan.height), translator.compiled.replicas
        joined, done = self._joined(axis=1), []
        for first in range(0, len(plan.columns), at_once):
            columns = plan.columns[first : first + at_once]
            tiles = [one.part(rows, slice(left, left + plan.width)) for left in columns]
            for left, output in zip(columns, self._runner.translate(tiles, code), strict=True):
                part = joined.add(round(left * translator.factor), output)
                done += [] if part is None else [part]
        return np.concatenate([*done, joined.rest()], axis=1)

    def _joined(self, *, axis: int) -> Joined:
        margin = 0 if self.radius is None else round(self.radius * self._runner.translator.factor)
        return Joined(axis=axis, margin=margin, disagreement=self.disagreement)

    def _measured_multiple(self) -> int:
        """The multiple of sizes and positions; measures the receptive radius too."""
        if self._multiple is None:
            translator = self._runner.translator
            maps = translator.side_maps

            def translate(pictures: np.ndarray) -> np.ndarray:
                side = None if maps is None else tf.zeros([*pictures.shape[:3], maps.format.channels])
                return self._runner.translate_signed(
                    tf.convert_to_tensor(pictures), side, None, [0] * len(pictures)
                )

            self._multiple = self._runner.sizes.multiple()
            self.radius = context_radius(
                translate,
                noise=_noise(translator.input.channels, translator.input.classes),
                multiple=self._multiple,
            )
        return self._multiple

    def _overlap(self, tile: int, multiple: int) -> int:
        """Pixels that a tile sees on each side beyond its own part."""
        if self._runner.limits.overlap is not None:
            return self._runner.limits.overlap
        wanted = _WIDE_OVERLAP if self.radius is None else self.radius
        return min(wanted, max((tile - multiple) // 2, 0))


def _noise(channels: int, classes: OneHot | None) -> _Noise:
    """A function that draws pictures of any shape [H, W], float32 in [-1, 1]."""

    def draw(random: np.random.Generator, height: int, width: int) -> np.ndarray:
        if classes is None:
            return random.uniform(-1, 1, (height, width, channels)).astype(np.float32)
        low, high = classes.value_range
        values = np.asarray(classes.classes, np.float32)[
            random.integers(len(classes.classes), size=(height, width))
        ]
        return (values - low) / (high - low) * 2 - 1

    return draw
