"""What a picture is between the steps of its translation: asked for, read, translated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from engine.pictures.picture_input import Picture
from engine.pictures.picture_paths import SourcePicture
from engine.translation.network_runner import NetworkInput


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A picture to translate.

    Attributes:
      position: its number among all pictures.
      source: the picture.
      stems: paths of its translations, without extension: one for each code.
    """

    position: int
    source: SourcePicture
    stems: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A picture that was read.

    Attributes:
      job: that asks for it.
      picture: as it was read.
      seen: what the network gets of it.
      target: the picture that is wanted; None if that is not known.
      notes: what is unusual about it.
    """

    job: Job
    picture: Picture
    seen: NetworkInput
    target: Picture | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pixels:
    """An output of the network as pixels.

    Attributes:
      by_kind: see `OutputFormat.pixels`; None if the output cannot be shown.
      raw: the output itself, float32 [H, W, C]; None if it is not written.
      channels: of the output.
    """

    by_kind: dict[str, np.ndarray] | None
    raw: np.ndarray | None
    channels: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Translated:
    """A picture that was translated, or cannot be.

    Attributes:
      job: that asked for it.
      loaded: the picture; None if it cannot be read.
      outputs: for each code, of the network [H, W, C], or its pixels.
      seam: how visible the borders of tiles are (`seam_ratio`); None if it was translated whole.
      error: why it is refused; None if it is not.
    """

    job: Job
    loaded: Loaded | None = None
    outputs: Sequence[np.ndarray | Pixels] = ()
    seam: float | None = None
    error: Exception | None = None
