"""Where the tiles of an image lie."""

from __future__ import annotations

import dataclasses

from engine.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Tiles of one size that cover an image; the first one of an axis starts at 0, the last one ends with it.

    Attributes:
      height: of a tile, in pixels.
      width: likewise.
      rows: first row of the tiles, ascending.
      columns: first column of the tiles, ascending.
    """

    height: int
    width: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def row_borders(self) -> list[int]:
        """The rows of the image at which a tile begins or has ended."""
        return _borders(self.rows, self.height)

    @property
    def column_borders(self) -> list[int]:
        """The columns of the image at which a tile begins or has ended."""
        return _borders(self.columns, self.width)


def plan_tiles(height: int, width: int, *, tile: int, overlap: int, multiple: int) -> TilePlan:
    """Plans tiles. An axis of the image that is not longer than a tile is not cut.

    Args:
      height: of the image in pixels, a multiple of `multiple`.
      width: likewise.
      tile: height and width of a tile.
      overlap: pixels that a tile sees beyond the part that it is responsible for, on each side; neighbours
        share at least twice as many.
      multiple: sizes and positions of tiles are multiples of it, so that a network of that stride computes
        the same in a tile as in the image.

    Raises:
      ConfigurationError: the overlap leaves nothing of a tile.
    """
    if height % multiple or width % multiple:
        raise ValueError(f"{height}x{width} is no multiple of {multiple}")
    tile = max(multiple, tile // multiple * multiple)
    step = (tile - 2 * overlap) // multiple * multiple
    if step <= 0 and max(height, width) > tile:
        raise ConfigurationError(
            f"--tile={tile}, --overlap={overlap}: tiles must be larger than twice the overlap and {multiple} "
            "pixels, the step of the network; enlarge the tile, or lower the overlap"
        )
    return TilePlan(
        height=min(height, tile),
        width=min(width, tile),
        rows=_starts(height, tile, step),
        columns=_starts(width, tile, step),
    )


def _borders(starts: tuple[int, ...], length: int) -> list[int]:
    return sorted({*starts[1:], *(start + length for start in starts[:-1])})


def _starts(length: int, tile: int, step: int) -> tuple[int, ...]:
    """First pixels of the tiles of an axis."""
    if length <= tile:
        return (0,)
    return (*range(0, length - tile, step), length - tile)
