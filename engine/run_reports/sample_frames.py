"""The sample grids of runs, small enough for a page."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from typing import TypeVar

from PIL import Image

from data import gfile
from engine.run_reports.run_record import RunRecord
from engine.storage.file_errors import reraise_read_errors

MOST_BYTES = 2_500_000
"""Of all pictures of a page; base64 makes a third more of them."""
MOST_FRAMES = 24
"""Of one run."""
_Item = TypeVar("_Item")
# (longest side in pixels, JPEG quality), the best first.
_QUALITIES = ((1200, 90), (900, 85), (700, 80), (500, 75), (360, 70), (240, 60))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture of a page.

    Attributes:
      examples: the position of the run.
      width, height: in pixels.
      source: a data URL.
    """

    examples: int
    width: int
    height: int
    source: str


def frames(runs: Sequence[RunRecord], *, most_bytes: int = MOST_BYTES) -> list[list[Frame]]:
    """The sample grids of each run: the first, the last and evenly chosen ones between them.

    Args:
      runs: whose samples are read; a grid that is damaged or still being written is left out.
      most_bytes: of all pictures together. The pictures are made smaller, and in the end fewer, to keep it.
    """
    share = most_bytes // max(1, sum(bool(run.samples) for run in runs))
    return [_frames_of(run.samples, share) for run in runs]


def _frames_of(samples: Sequence[tuple[int, str]], most_bytes: int) -> list[Frame]:
    pictures = [
        (examples, picture)
        for examples, path in _evenly(samples, MOST_FRAMES)
        if (picture := read_picture(path)) is not None
    ]
    encoded = []
    for longest_side, quality in _QUALITIES:
        encoded = [(examples, *encode(picture, longest_side, quality)) for examples, picture in pictures]
        if sum(len(data) for *_, data in encoded) <= most_bytes:
            break
    while len(encoded) > 1 and sum(len(data) for *_, data in encoded) > most_bytes:
        encoded = _evenly(encoded, len(encoded) - 1)
    return [
        Frame(examples=examples, width=width, height=height, source=data_url(data))
        for examples, (width, height), data in encoded
    ]


def _evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many items, the first and the last among them; of one, the last."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(n * (len(items) - 1) / (most - 1))] for n in range(most)]


def read_picture(path: str) -> Image.Image | None:
    """A picture of a run; None if it is damaged, such as one that is being written."""
    with reraise_read_errors(path):
        if not gfile.is_file(path):
            return None
        with gfile.open_binary(path) as file:
            contents = file.read()
    try:
        return Image.open(io.BytesIO(contents)).convert("RGB")
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for a file that it cannot read
        return None


def encode(picture: Image.Image, longest_side: int, quality: int) -> tuple[tuple[int, int], bytes]:
    """(width, height) and the JPEG of a picture that is made no larger than a number of pixels."""
    if max(picture.size) > longest_side:
        picture = picture.copy()
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=0)  # optimize=True fails on noise
    return picture.size, file.getvalue()


def data_url(jpeg: bytes) -> str:
    """A JPEG as a URL that needs no file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
