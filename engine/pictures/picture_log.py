"""What the user learns about the pictures of a translation: how they differ, and which are refused."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.pictures.trained_size import TrainedSize

_SHOWN = 20  # refused pictures, at most


class PictureLog:
    """What the user learns about the pictures.

    Args:
      pictures: how many there are.

    Attributes:
      notes: what is unusual -> number of such pictures.
    """

    def __init__(self, pictures: int):
        self._pictures = pictures
        self.notes: collections.Counter[str] = collections.Counter()
        self._refused: dict[int, Exception] = {}
        self._seams: dict[str, float] = {}

    def add(self, notes: Iterable[str], *, size: TrainedSize | None, height: int, width: int) -> None:
        """Counts what is unusual about a picture that was translated.

        Args:
          notes: of the picture, its map and its output.
          size: of the training; None if the picture is resized to that, or if it does not matter.
          height: of the picture.
          width: likewise.
        """
        self.notes.update(notes)
        if size is not None and size.differs(height, width):
            self.notes[
                f"not of {size.height}x{size.width} pixels, to which training resized its pictures; try "
                "--resize=as_trained, which resizes these too, and the results back"
            ] += 1

    def add_seam(self, path: str, ratio: float) -> None:
        """Notes how visible the borders of the tiles of a picture are, as of `engine.tiling.seams`."""
        self._seams[path] = ratio

    def refuse(self, position: int, error: Exception) -> None:
        """Notes why the picture of a position is not translated."""
        self._refused[position] = error

    def show(self, where: str, *, tiles: str = "") -> None:
        """Prints how it went.

        Args:
          where: the pictures are, and with what they were translated.
          tiles: what the tiles of large pictures were like.

        Raises:
          ConfigurationError, NonFiniteOutputError: a picture was refused.
        """
        print_notes(self.notes, pictures=self._pictures)
        if self._seams:
            worst = max(self._seams, key=lambda path: self._seams[path])
            mean = sum(self._seams.values()) / len(self._seams)
            print(
                f"note: {len(self._seams)} of {_pictures(self._pictures)} in tiles {tiles}; steps across "
                f"their borders are {mean:.2f} times those beside them (at most {self._seams[worst]:.2f}: "
                f"{worst})"
            )
        refused = [self._refused[position] for position in sorted(self._refused)]
        if len(refused) > 1:
            print_refused(refused, of=_pictures(self._pictures))
        if len(refused) < self._pictures:
            print(f"translated {_pictures(self._pictures - len(refused))} {where}")
        if refused:
            raise self._error(refused)

    def _error(self, refused: Sequence[Exception]) -> Exception:
        """The error to end with: the first, or the first that is not about the input."""
        broken = [error for error in refused if isinstance(error, NonFiniteOutputError)]
        error = (broken or refused)[0]
        if len(refused) == 1 or broken:
            return error
        return ConfigurationError(
            f"{len(refused)} of {_pictures(self._pictures)} are refused (listed above); mend or remove them "
            f"(the first: {error})"
        )


def print_refused(errors: Sequence[Exception], *, of: str) -> None:
    """Prints what is wrong with pictures; of many, the first ones.

    Args:
      errors: one for each of them.
      of: how many there are, with their name.
    """
    print(f"refused {len(errors)} of {of}:")
    print("\n".join(f"  {error}" for error in errors[:_SHOWN]))
    if len(errors) > _SHOWN:
        print(f"  and {len(errors) - _SHOWN} more")


def print_notes(notes: Mapping[str, int], *, pictures: int) -> None:
    """Prints what is unusual about some of the pictures.

    Args:
      notes: what is unusual -> number of such pictures.
      pictures: how many there are.
    """
    for note, count in notes.items():
        print(f"note: {count} of {_pictures(pictures)} {'is' if count == 1 else 'are'} {note}")


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
