"""How the networks of a run take or make the images of one role, such as "input" or "side_map"."""

from __future__ import annotations

import dataclasses

from data.description import DataDescription, ImageFormat
from data.imaging import OneHot
from data.roles import SIDE_MAP
from engine.errors import ConfigurationError
from engine.pictures.picture_input import Picture, read_picture
from engine.pictures.trained_size import TrainedSize, trained_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoleFormat:
    """How networks take or make the images of a role.

    Attributes:
      channels: of the pictures that take the place of such images.
      stored: how the data set stored the images; None if that is not known.
      classes: that networks see one-hot; None if they see values.
      size: the size at which the networks saw the images in training; None if they kept their own, or it is
        not known.
    """

    channels: int
    stored: ImageFormat | None = None
    classes: OneHot | None = None
    size: TrainedSize | None = None

    def read(self, path: str, *, keeps_alpha: bool = False) -> Picture:
        """Reads a picture as `data.prepare` would have read it; see `read_picture`.

        Args:
          path: of the picture.
          keeps_alpha: whether transparency that the networks do not take is kept apart, not refused.

        Raises:
          data.errors.DataError: the picture cannot be read, or the networks cannot take it.
        """
        return read_picture(
            path,
            channels=self.channels,
            trained=self.stored,
            classes=self.classes,
            keeps_alpha=keeps_alpha,
        )


def role_format(data: DataDescription, role: str) -> RoleFormat:
    """The format of the images of a role.

    Args:
      data: that the networks were trained on.
      role: "input", "target" or "side_map".

    Raises:
      ConfigurationError: the run has side maps, and older code did not record how they are stored.
    """
    stored, classes = data.images.get(role), data.one_hot.get(role)
    if role == SIDE_MAP and stored is None and data.images:
        raise ConfigurationError(
            "dataset.json of the run: is of an older version, which did not record how side maps are stored; "
            "remove it, and the data set itself is read instead"
        )
    return RoleFormat(
        channels=data.shapes[role][-1] if classes is None else len(classes.classes[0]),
        stored=stored,
        classes=classes,
        size=trained_size(data, role),
    )
