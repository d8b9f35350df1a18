"""Side information for pictures: one vector for all of them, and a map for each, paired by name."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from data.description import DataDescription
from data.errors import DataError
from data.roles import SIDE_MAP, SIDE_VECTOR
from engine.errors import ConfigurationError
from engine.pictures.counterparts import Counterparts
from engine.pictures.picture_input import Picture
from engine.pictures.role_format import RoleFormat, role_format


class SideMaps:
    """Finds and reads the map of each picture: the file of the same relative name in a folder.

    Args:
      folder: of the maps; None if they come with the pictures, and `format` is all that is needed.
      format: how the networks take maps.

    Raises:
      data.errors.DataError: there is no such folder, or it holds no images.
    """

    def __init__(self, folder: str | None, format: RoleFormat):
        self.format = format
        if folder is not None:
            self._files = Counterparts(folder, flag="side_map", what="map")

    @property
    def paths(self) -> list[str]:
        """The files of all maps."""
        return self._files.paths

    def read(self, path: str, picture: Picture, *, name: str | None = None) -> Picture:
        """Reads the map of a picture.

        Args:
          path: of the picture.
          picture: its pixels have the size that the map must have.
          name: relative path of the picture without extension; None is its file name alone.

        Raises:
          data.errors.DataError: there is no such map, or it cannot be used.
        """
        name = os.path.splitext(os.path.basename(path))[0] if name is None else name
        map_path = self._files.find(path, name)
        found = self.format.read(map_path)
        (height, width), (map_height, map_width) = picture.pixels.shape[:2], found.pixels.shape[:2]
        if (height, width) != (map_height, map_width):
            raise DataError(
                f"{map_path}: is a map of {map_width}x{map_height} for a picture of "
                f"{width}x{height}; give both the same size"
            )
        return found


def find_side_maps(
    names: Sequence[str], data: DataDescription, *, side_map: str | None, in_memory: bool = False
) -> SideMaps | None:
    """The maps for pictures; None if the networks take none.

    Args:
      names: `Task.side_inputs`.
      data: that the networks were trained on.
      side_map: the flag; None if it is not given.
      in_memory: the maps come with the pictures, so the flag is not needed.

    Raises:
      ConfigurationError: the flag is missing or superfluous.
      data.errors.DataError: the folder cannot be used.
    """
    if SIDE_MAP in names and in_memory:
        return SideMaps(None, role_format(data, SIDE_MAP))
    if SIDE_MAP in names and side_map is None:
        raise ConfigurationError(
            "no --side_map given, which the run's networks take: a folder with a map for each picture, of "
            "the same name and size"
        )
    if side_map is None:
        return None
    if SIDE_MAP not in names:
        raise ConfigurationError(f"--side_map={side_map}: the run's networks take none; leave it out")
    return SideMaps(side_map, role_format(data, SIDE_MAP))


def parse_side_vector(
    names: Sequence[str],
    example: Mapping[str, tf.TensorSpec],
    *,
    side_vector: str | None,
    class_names: Sequence[str],
) -> list[float] | None:
    """Parses the side vector, which is the same for every picture.

    Args:
      names: `Task.side_inputs`.
      example: shapes of the run's examples.
      side_vector: the flag; None if it is not given.
      class_names: classes that the numbers of a vector stand for; empty if they do not.

    Returns:
      Its numbers; None if the networks take none.

    Raises:
      ConfigurationError: the flag is missing, superfluous or malformed, or the networks take something else.
    """
    unknown = [name for name in names if name not in (SIDE_VECTOR, SIDE_MAP)]
    if unknown:
        raise ConfigurationError(
            f"the run's networks take {unknown[0]!r} with each picture, for which there is no flag; prepare "
            "a data set that has it, and use engine.evaluate with --split"
        )
    if SIDE_VECTOR not in names:
        if side_vector is not None:
            raise ConfigurationError(
                f"--side_vector={side_vector}: the run's networks take none; leave it out"
            )
        return None
    [size] = example[SIDE_VECTOR].shape
    wanted = f"{size} number{'' if size == 1 else 's'} such as {','.join(['0.5'] * size)}"
    if class_names:
        wanted = f"one of {', '.join(class_names)}, or {wanted}"
    if side_vector is None:
        raise ConfigurationError(f"no --side_vector given, which the run's networks take: {wanted}")
    if side_vector in class_names:
        return [float(name == side_vector) for name in class_names]
    try:
        numbers = [float(text) for text in side_vector.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != size or not all(map(math.isfinite, numbers)):
        raise ConfigurationError(f"--side_vector={side_vector}: must be {wanted}")
    return numbers
