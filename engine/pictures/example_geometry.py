"""From pictures of any size to an example of the size of the training, as in evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from data.description import DataDescription
from data.errors import DataError
from data.pipeline import resizing
from data.roles import INPUT, TARGET
from engine.pictures.picture_input import Picture
from engine.pictures.trained_size import trained_size

_Size = tuple[int, int]


class ExampleGeometry:
    """Resizes or crops the pictures of an example, as the data set of a run does in evaluation.

    All have the same size. Of super-resolution, the input may also be as many times smaller as in training;
    an input of the size of the target is made smaller.

    Args:
      data: that the run was trained on.
    """

    def __init__(self, data: DataDescription):
        self._data = data
        self._resizes = data.load_size is not None
        self._crop: _Size = (data.shapes[TARGET][0], data.shapes[TARGET][1])
        self._input: _Size = (data.shapes[INPUT][0], data.shapes[INPUT][1])
        self._factor = self._crop[0] // self._input[0]

    def fit(self, pictures: Mapping[str, Picture], paths: Mapping[str, str]) -> dict[str, tf.Tensor]:
        """Makes the images of an example.

        Args:
          pictures: "input", "target" and maybe "side_map".
          paths: of the same, for messages.

        Returns:
          The images [H, W, C] of the same dtypes, by role.

        Raises:
          DataError: the sizes do not agree, or are too small for the crop.
        """
        sizes = {role: _size(picture) for role, picture in pictures.items()}
        is_small = self._factor > 1 and sizes[TARGET] == _times(sizes[INPUT], self._factor)
        for role, size in sizes.items():
            if size != sizes[TARGET] and not (role == INPUT and is_small):
                smaller = f", or make the input {self._factor} times smaller" if self._factor > 1 else ""
                raise DataError(
                    f"{paths[role]}: is {size[1]}x{size[0]}, but {paths[TARGET]} is "
                    f"{sizes[TARGET][1]}x{sizes[TARGET][0]}; give both the same size{smaller}"
                )
        if not self._resizes and any(
            length < crop for length, crop in zip(sizes[TARGET], self._crop, strict=True)
        ):
            raise DataError(
                f"{paths[TARGET]}: is {sizes[TARGET][1]}x{sizes[TARGET][0]}, smaller than the "
                f"{self._crop[1]}x{self._crop[0]} of CROP_SIZE, and LOAD_SIZE = 0 resizes nothing; remove or "
                "enlarge it"
            )
        wanted = dict.fromkeys(pictures, self._crop) | ({INPUT: self._input} if is_small else {})
        fit = self._resized if self._resizes else self._cropped
        images = {role: fit(role, picture, wanted[role], sizes[INPUT]) for role, picture in pictures.items()}
        if self._factor > 1 and not is_small:
            images[INPUT] = self._made_smaller(images[INPUT], pictures[INPUT].value_range)
        return images

    def _resized(self, role: str, picture: Picture, wanted: _Size, size: _Size) -> tf.Tensor:
        """The whole picture at the size `wanted`."""
        del size
        trained = trained_size(self._data, role)
        assert trained is not None, "training resized its images"
        low, _ = picture.value_range
        return trained.at(*wanted).apply(picture.pixels, padding=low)

    def _cropped(self, role: str, picture: Picture, wanted: _Size, size: _Size) -> tf.Tensor:
        """The centre of the picture; where inputs are smaller, exactly the part that the input shows."""
        del role
        enlarged = _size(picture)[0] // size[0]  # of the picture, compared with the input
        top, left = (
            (length - crop // enlarged) // 2 * enlarged for length, crop in zip(size, wanted, strict=True)
        )
        return tf.convert_to_tensor(picture.pixels[top : top + wanted[0], left : left + wanted[1]])

    def _made_smaller(self, image: tf.Tensor, value_range: tuple[float, float]) -> tf.Tensor:
        """The input as data sets make it smaller after the crop."""
        height, width = self._input
        smaller = resizing.resize(
            image, height=height, width=width, is_labels=INPUT in self._data.label_roles
        )
        return tf.clip_by_value(smaller, *value_range) if smaller.dtype.is_floating else smaller


def _size(picture: Picture) -> _Size:
    height, width = picture.pixels.shape[:2]
    return height, width


def _times(size: _Size, factor: int) -> _Size:
    return size[0] * factor, size[1] * factor
