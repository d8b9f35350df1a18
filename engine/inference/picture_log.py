"""What the user learns about the pictures of a translation: how they differ, and which are refused."""

from __future__ import annotations

import collections

from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.picture_input import Picture
from engine.inference.trained_size import TrainedSize


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

    def add_notes(self, picture: Picture, size: TrainedSize | None) -> None:
        """Counts what is unusual about a picture; `size` is that of the training, unless it is resized."""
        self.notes.update(picture.notes)
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
        for note, count in self.notes.items():
            print(f"note: {count} of {_pictures(self._pictures)} {'is' if count == 1 else 'are'} {note}")
        if len(self.refused) > 1:
            print(f"refused {len(self.refused)} of {_pictures(self._pictures)}:")
            print("\n".join(f"  {error}" for error in self.refused))
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


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
