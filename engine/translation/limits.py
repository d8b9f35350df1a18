"""How much of pictures a network translates at once."""

from __future__ import annotations

import dataclasses
import math

from engine.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is computed at once.

    Attributes:
      batch: pictures of one size that each replica translates at once, at most.
      memory_gib: for the tensors of the network on a replica, about. Pictures for which that is not enough
        are translated in tiles, and batches become smaller.
      tile: height and width of tiles in pixels, instead of what fits into the memory; 0 never cuts pictures.
      overlap: pixels that a tile sees beyond the part that it is responsible for, on each side; None is what
        the network needs.

    Raises:
      ConfigurationError: a value is out of range.
    """

    batch: int = 8
    memory_gib: float = 2.0
    tile: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("tile", 0), ("overlap", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(f"--{name}={value}: must be at least {least}; raise it")
        if not 0 < self.memory_gib < math.inf:
            raise ConfigurationError(
                f"--memory_gib={self.memory_gib}: must be above 0, and finite; change it"
            )
        if self.tile and self.overlap and 2 * self.overlap >= self.tile:
            raise ConfigurationError(
                f"--tile={self.tile}, --overlap={self.overlap}: tiles must be larger than twice the overlap; "
                "enlarge the tile, or lower the overlap"
            )

    @property
    def memory_bytes(self) -> float:
        """The memory in bytes."""
        return self.memory_gib * 2**30
