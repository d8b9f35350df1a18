"""Geometric augmentations: crops, flips, rotations.

All images of a call are changed alike, whatever their numbers of channels.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import tensorflow as tf

from data import imaging
from data.augmentation import base, boxes, filtering
from data.augmentation.boxes import Box
from data.errors import DataError


class Mirrored(NamedTuple):
    """Whether images are mirrored: bool scalars."""

    horizontal: tf.Tensor
    vertical: tf.Tensor


class RotationParameters(NamedTuple):
    """A rotation: whether it happens (bool scalar), and its angle (float32 scalar)."""

    happens: tf.Tensor
    degrees: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Cuts out a random part of random shape and resizes it, as torchvision's RandomResizedCrop.

    Area and aspect ratio are drawn up to 10 times until the part fits into the image. If none fits, the
    largest centred part with an allowed ratio is used. Resizing is `filtering.bicubic` (torchvision's
    default is bilinear), but of labels `imaging.nearest`.

    Attributes:
      scale: smallest and largest area of the part, as a fraction of the image's; uniform.
      ratio: smallest and largest width / height of the part before resizing; its logarithm is uniform.

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        base.check_range(self, "scale", minimum=0, maximum=1, above=True)
        base.check_range(self, "ratio", minimum=0, above=True)

    def draw(self, seed: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> Box:
        """Draws the part to cut out of an image of that size, for a seed int64 [2]."""
        return boxes.draw_shape_and_position(seed, height, width, scale=self.scale, ratio=self.ratio)

    def __call__(
        self,
        images: dict[str, tf.Tensor],
        size: tuple[int, int] | None,
        seed: tf.Tensor,
        *,
        labels: Collection[str] = (),
    ) -> dict[str, tf.Tensor]:
        """Cuts the same part out of all images.

        Args:
          images: {role: float32 [H, W, C] in [0, 1]} of one H and W.
          size: (height, width) of the result in pixels; None for that of the images.
          seed: int64 [2].
          labels: roles of the images whose values are classes.

        Returns:
          {role: float32 [height, width, C] in [0, 1]}.
        """
        height, width = _size(images)
        box = self.draw(seed, height, width)
        height, width = (height, width) if size is None else size

        def cut(image: tf.Tensor, resize: Callable) -> tf.Tensor:
            part = tf.slice(image, [box.top, box.left, 0], [box.height, box.width, image.shape[-1]])
            part = resize(part, height=height, width=width)
            return tf.ensure_shape(part, image.shape) if size is None else part

        return {
            role: cut(image, imaging.nearest if role in labels else filtering.bicubic)
            for role, image in images.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop:
    """Pads images and cuts out a rectangle at a random position.

    Without a size, the images keep theirs, so padding of n pixels moves them by up to n.

    Attributes:
      pad: padding on every edge in pixels, before cropping.
      fill: of the padding: "reflect" (d c b a | a b c d), or a grey level from 0 to 1.

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    pad: int = 0
    fill: float | str = "reflect"

    def __post_init__(self) -> None:
        base.check_whole_number(self, "pad", minimum=0)
        _check_fill(self)

    def draw(
        self, seed: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor, size: tuple[int, int]
    ) -> Box:
        """Draws a rectangle of that size, in coordinates of the padded image, for a seed int64 [2]."""
        return boxes.draw_position(seed, height + 2 * self.pad, width + 2 * self.pad, size)

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, size: tuple[int, int] | None = None
    ) -> dict[str, tf.Tensor]:
        """Cuts the same rectangle out of all images.

        Args:
          images: {role: float32 [H, W, C] in [0, 1]} of one H and W.
          seed: int64 [2].
          size: (height, width) in pixels, at most that of the padded image; None for the images' size.

        Returns:
          {role: float32 [height, width, C] in [0, 1]}.
        """
        given = _size(images)
        height, width = given if size is None else size
        box = self.draw(seed, *given, (height, width))

        def cut(image: tf.Tensor) -> tf.Tensor:
            channels = image.shape[-1]
            part = tf.slice(self._padded(image), [box.top, box.left, 0], [height, width, channels])
            return tf.ensure_shape(part, image.shape if size is None else [height, width, channels])

        return {role: cut(image) for role, image in images.items()}

    def _padded(self, image: tf.Tensor) -> tf.Tensor:
        if not self.pad:
            return image
        if self.fill == "reflect":
            return filtering.reflected(filtering.reflected(image, self.pad, axis=0), self.pad, axis=1)
        return tf.pad(image, [[self.pad] * 2, [self.pad] * 2, [0, 0]], constant_values=self.fill)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirrors all images, or none.

    Attributes:
      horizontal: swap left and right, with `probability`.
      vertical: swap top and bottom, with `probability`, independently of `horizontal`.
      probability: of each, from 0 to 1.

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    horizontal: bool = True
    vertical: bool = False
    probability: float = 0.5

    def __post_init__(self) -> None:
        base.check_choice(self)
        if not (self.horizontal or self.vertical):
            raise DataError(
                "Flip.horizontal = False and Flip.vertical = False: one must be True, or leave Flip out"
            )

    def draw(self, seed: tf.Tensor) -> Mirrored:
        """Draws what is mirrored, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        return Mirrored(
            base.happens(seeds[0], self.probability if self.horizontal else 0),
            base.happens(seeds[1], self.probability if self.vertical else 0),
        )

    def __call__(self, images: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed)
        # tf.reverse is five times as fast as a slice with a negative step.
        images = base.change_if(drawn.horizontal, images, lambda image: tf.reverse(image, [1]))
        return base.change_if(drawn.vertical, images, lambda image: tf.reverse(image, [0]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation:
    """Rotates all images about their centre, at the same size.

    Interpolation is bilinear; labels get the nearest pixel.

    Attributes:
      degrees: smallest and largest angle, counter-clockwise; uniform.
      fill: of the corners: "reflect" (d c b a | a b c d), or a grey level from 0 to 1.
      probability: that an example is rotated, from 0 to 1.

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    degrees: tuple[float, float] = (-10.0, 10.0)
    fill: float | str = "reflect"
    probability: float = 1.0

    def __post_init__(self) -> None:
        base.check_range(self, "degrees", minimum=-360, maximum=360)
        _check_fill(self)
        base.check_choice(self)

    def draw(self, seed: tf.Tensor) -> RotationParameters:
        """Draws whether and how far to rotate, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        return RotationParameters(
            base.happens(seeds[0], self.probability), base.uniform(seeds[1], self.degrees)
        )

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, labels: Collection[str] = ()
    ) -> dict[str, tf.Tensor]:
        """Rotates all images alike.

        Args:
          images: {role: float32 [H, W, C] in [0, 1]}.
          seed: int64 [2].
          labels: roles of the images whose values are classes.

        Returns:
          {role: float32 [H, W, C] in [0, 1]}.
        """
        drawn = self.draw(seed)

        changed: dict[str, tf.Tensor] = {}
        for interpolation, exact in (("BILINEAR", False), ("NEAREST", True)):
            chosen = {role: image for role, image in images.items() if (role in labels) == exact}
            changed |= base.change_if(
                drawn.happens,
                chosen,
                functools.partial(self._rotated, degrees=drawn.degrees, interpolation=interpolation),
            )
        return {role: changed[role] for role in images}

    def _rotated(self, image: tf.Tensor, degrees: tf.Tensor, interpolation: str) -> tf.Tensor:
        size = tf.shape(image)[:2]
        y, x = tf.unstack((tf.cast(size, tf.float32) - 1.0) / 2.0)  # the centre
        angle = degrees * (math.pi / 180.0)
        c, s = tf.cos(angle), tf.sin(angle)
        # Rows of the map from a pixel (x, y) of the result to the position it is read from.
        transform = tf.stack([c, -s, x - c * x + s * y, s, c, y - s * x - c * y, 0.0, 0.0])
        reflect = self.fill == "reflect"
        rotated = tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=transform[None],
            output_shape=size,
            fill_value=0.0 if reflect else self.fill,
            interpolation=interpolation,
            fill_mode="REFLECT" if reflect else "CONSTANT",
        )
        return tf.clip_by_value(rotated[0], 0.0, 1.0)  # rounding errors only


def _check_fill(owner: Crop | Rotation) -> None:
    """Raises a DataError unless `fill` is "reflect" or from 0 to 1."""
    if owner.fill != "reflect" and isinstance(owner.fill, str):
        raise DataError(
            f"{type(owner).__name__}.fill = {owner.fill!r}: must be 'reflect' or a grey level from 0 to 1"
        )
    if owner.fill != "reflect":
        base.check_number(owner, "fill", minimum=0, maximum=1)


def _size(images: dict[str, tf.Tensor]) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Height and width of the images, as ints if they are static."""
    image = next(iter(images.values()))
    dynamic = tf.unstack(tf.shape(image)[:2])
    return tuple(known or size for known, size in zip(image.shape[:2], dynamic, strict=True))
