"""What the user learns about the pictures of a translation: how they differ, and which are refused."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.picture_input import Picture
from engine.inference.trained_size import TrainedSize

_SHOWN = 20  # refused pictures, at most


class PictureLog:
    """What the user learns about the pictures.

    Args:
      pictures: how many there are.

    Attributes:
      notes: what is unusual -> number of such pictures.
      refused: an error for each picture that is not translated.
    """

    def __init__(self, pictures: int):
        self._pictures = pictures
        self.notes: collections.Counter[str] = collections.Counter()
        self.refused: list[Exception] = []

    def add_notes(self, picture: Picture, side_map: Picture | None, size: TrainedSize | None) -> None:
        """Counts what is unusual about a picture and its map.

        Args:
          picture: that was translated.
          side_map: its map, if it has one.
          size: of the training; None if the picture is resized to that.
        """
        self.notes.update(picture.notes)
        if side_map is not None:
            self.notes.update(f"with a map {note}" for note in side_map.notes)
        height, width = picture.pixels.shape[:2]
        if size is not None and size.differs(height, width):
            self.notes[
                f"not of {size.height}x{size.width} pixels, to which training resized its pictures; try "
                "--resize=as_trained, which resizes these too, and the results back"
            ] += 1

    def show(self, where: str) -> None:
        """Prints how it went.

        Args:
          where: the pictures are, and with what they were translated.

        Raises:
          ConfigurationError, NonFiniteOutputError: a picture was refused.
        """
        print_notes(self.notes, pictures=self._pictures)
        if len(self.refused) > 1:
            print_refused(self.refused, of=_pictures(self._pictures))
        if len(self.refused) < self._pictures:
            print(f"translated {_pictures(self._pictures - len(self.refused))} {where}")
        if self.refused:
            raise self._error()

    def _error(self) -> Exception:
        """The error to end with: the first, or the first that is not about the input."""
        broken = [error for error in self.refused if isinstance(error, NonFiniteOutputError)]
        error = (broken or self.refused)[0]
        if len(self.refused) == 1 or broken:
            return error
        return ConfigurationError(
            f"{len(self.refused)} of {_pictures(self._pictures)} are refused (listed above); mend or remove "
            f"them (the first: {error})"
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
