"""Resizing, cropping and mirroring: from a stored image to the part of it that a network sees."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from data.augmentation.geometry import RandomResizedCrop
from data.errors import DataError
from data.pipeline import resizing

RESIZE, PAD = "resize", "resize_with_pad"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizeAndCrop:
    """How images of any size become images of crop_size.

    Attributes:
      load_size: (height, width) in pixels before cropping; None keeps the stored size.
      crop_size: (height, width) cut out of that.
      resize: "resize" ignores the aspect ratio, as pix2pix does; "resize_with_pad" keeps it and fills the
        rest with `padding`.
      flip: mirror half of the training examples left and right.
      random_resized_crop: if not None, training cuts this out of the stored image and resizes it to
        crop_size, instead of load_size and a crop.
      random_crop_epochs: how many epochs have random crops; later ones have the whole image, resized to
        crop_size and mirrored at random. None is all. Images that are not resized are always cropped.
    """

    load_size: tuple[int, int] | None
    crop_size: tuple[int, int]
    resize: str = RESIZE
    flip: bool = True
    random_resized_crop: RandomResizedCrop | None = None
    random_crop_epochs: int | None = None

    def training(
        self,
        images: Sequence[tf.Tensor],
        seed: tf.Tensor,
        *,
        padding: Sequence[float],
        epoch: int | tf.Tensor = 0,
        labels: Sequence[bool] = (),
    ) -> tuple[tf.Tensor, ...]:
        """Cuts the same random part out of all images of an example, mirrored at random.

        Only that part is resampled, so the cost is that of the crop.

        Args:
          images: [H, W, C] each, of one H and W, uint8, uint16 or float32; at least crop_size if there
            is no load_size; C may differ.
          seed: int64 [2], see `example_seed`; every position is equally likely.
          padding: for each image, the pixel value for padding.
          epoch: of the example, from 0.
          labels: for each image, whether its values are classes, which resizing must not mix; empty if those
            of none are.

        Returns:
          A tuple of [*crop_size, C] of the dtypes of `images`.
        """
        draws = tf.random.split(seed, 3)
        mirrored = tf.random.stateless_uniform([], draws[2]) < 0.5 if self.flip else False
        if self.random_crop_epochs is None or (self.load_size is None and self.random_resized_crop is None):
            return self._random_part(images, draws, mirrored, padding, labels)
        return tf.cond(
            tf.convert_to_tensor(epoch) < self.random_crop_epochs,
            lambda: self._random_part(images, draws, mirrored, padding, labels),
            lambda: self._resized(images, self.crop_size, (0, 0), mirrored, padding, labels),
        )

    def _random_part(
        self,
        images: Sequence[tf.Tensor],
        draws: Sequence[tf.Tensor],
        mirrored: bool | tf.Tensor,
        padding: Sequence[float],
        labels: Sequence[bool],
    ) -> tuple[tf.Tensor, ...]:
        """Cuts the part that the seeds `draws` select."""
        height, width = self.crop_size
        stored_size = tf.unstack(tf.shape(images[0])[:2])
        if self.random_resized_crop is not None:
            box = self.random_resized_crop.draw(draws[0], *stored_size)
            corner, extent = [box.top, box.left, 0], [box.height, box.width]
            boxes = [tf.slice(image, corner, [*extent, image.shape[-1]]) for image in images]
            whole = resizing.Window(
                size=self.crop_size, top=0, left=0, height=height, width=width, mirrored=mirrored
            )
            return resizing.resize_window(boxes, whole, labels=labels)
        size = stored_size if self.load_size is None else self.load_size
        top = tf.random.stateless_uniform([], draws[0], 0, size[0] - height + 1, tf.int32)
        left = tf.random.stateless_uniform([], draws[1], 0, size[1] - width + 1, tf.int32)
        return self._part(images, size, (top, left), mirrored, padding, labels)

    def evaluation(
        self, images: Sequence[tf.Tensor], *, padding: Sequence[float], labels: Sequence[bool] = ()
    ) -> tuple[tf.Tensor, ...]:
        """Resizes each whole image to crop_size or, if there is no load_size, cuts out its centre.

        Args:
          images: as in `training`.
          padding: as in `training`.
          labels: as in `training`.

        Returns:
          A tuple of [*crop_size, C] of the dtypes of `images`.
        """
        height, width = self.crop_size
        if self.load_size is not None:
            return self._part(images, self.crop_size, (0, 0), False, padding, labels)
        size = tf.unstack(tf.shape(images[0])[:2])
        corner = ((size[0] - height) // 2, (size[1] - width) // 2)
        return self._part(images, size, corner, False, padding, labels)

    def check_sizes(self, metadata: Mapping[str, Any], *, where: str) -> None:
        """Raises DataError if images that are not resized are too small to cut from.

        Args:
          metadata: of the data set; names its smallest images.
          where: its directory, for the message.
        """
        if self.load_size is not None:
            return
        for length, crop in zip(("height", "width"), self.crop_size, strict=True):
            smallest = metadata.get(f"smallest_{length}")
            if smallest and smallest["pixels"] < crop:
                raise DataError(
                    f"{where}: crop_size = {self.crop_size} does not fit into {smallest['name']!r}, whose "
                    f"{length} is {smallest['pixels']}; lower crop_size, or set load_size to resize images"
                )

    def _part(
        self,
        images: Sequence[tf.Tensor],
        size: Sequence[int | tf.Tensor],
        corner: tuple[int | tf.Tensor, int | tf.Tensor],
        mirrored: bool | tf.Tensor,
        padding: Sequence[float],
        labels: Sequence[bool],
    ) -> tuple[tf.Tensor, ...]:
        """As `_resized`, of images that keep their stored `size` if there is no load_size."""
        if self.load_size is not None:
            return self._resized(images, size, corner, mirrored, padding, labels)
        return resizing.cut_window(images, self._window(size, corner, mirrored))

    def _resized(
        self,
        images: Sequence[tf.Tensor],
        size: Sequence[int | tf.Tensor],
        corner: tuple[int | tf.Tensor, int | tf.Tensor],
        mirrored: bool | tf.Tensor,
        padding: Sequence[float],
        labels: Sequence[bool],
    ) -> tuple[tf.Tensor, ...]:
        """Cuts the part at `corner` (top, left) out of all images resized to `size`."""
        whole = self._window(size, corner, mirrored)
        if self.resize != PAD:
            return resizing.resize_window(images, whole, labels=labels)
        padded = tuple(
            resizing.resize_with_pad(image, height=size[0], width=size[1], value=value, is_labels=is_labels)
            for image, value, is_labels in zip(images, padding, labels or [False] * len(images), strict=True)
        )
        return resizing.cut_window(padded, whole)

    def _window(
        self,
        size: Sequence[int | tf.Tensor],
        corner: tuple[int | tf.Tensor, int | tf.Tensor],
        mirrored: bool | tf.Tensor,
    ) -> resizing.Window:
        height, width = self.crop_size
        return resizing.Window(
            size=size, top=corner[0], left=corner[1], height=height, width=width, mirrored=mirrored
        )


def example_seed(seed: int, epoch: int | tf.Tensor, example_id: tf.Tensor) -> tf.Tensor:
    """Returns the stateless seed of one example in one epoch: int64 [2].

    It depends on nothing else. So an example is augmented the same way for any batch size, number of workers
    and position at which the stream was opened.
    """
    # fold_in draws in the dtype of its argument: all must be int64 to be reproducible.
    epoch_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), tf.cast(epoch, tf.int64))
    return tf.random.fold_in(epoch_seed, tf.cast(example_id, tf.int64))


def make_resize_and_crop(
    *,
    load_size: int | tuple[int, int],
    crop_size: int | tuple[int, int],
    resize: str,
    flip: bool,
    random_resized_crop: RandomResizedCrop | None,
    random_crop_epochs: int | None = None,
) -> ResizeAndCrop:
    """Makes a `ResizeAndCrop` from a user's settings, where a size is one number or (height, width).

    Args:
      load_size: pixels; 0 for no resizing.
      crop_size: pixels.
      resize: as in `ResizeAndCrop`.
      flip: as in `ResizeAndCrop`.
      random_resized_crop: as in `ResizeAndCrop`.
      random_crop_epochs: as in `ResizeAndCrop`.

    Raises:
      DataError: a setting cannot be used; the message names it.
    """
    crop = _height_and_width("crop_size", crop_size)
    load = None if load_size == 0 else _height_and_width("load_size", load_size)
    if load and any(large < small for large, small in zip(load, crop, strict=True)):
        raise DataError(
            f"crop_size = {crop_size} is larger than load_size = {load_size}: a crop must fit into the "
            "resized image; raise load_size or lower crop_size"
        )
    if resize not in (RESIZE, PAD):
        raise DataError(f"resize = {resize!r}: must be {RESIZE!r} or {PAD!r}")
    if random_crop_epochs is not None and random_crop_epochs < 0:
        raise DataError(
            f"random_crop_epochs = {random_crop_epochs}: must be at least 0; None crops in every epoch"
        )
    return ResizeAndCrop(
        load_size=load,
        crop_size=crop,
        resize=resize,
        flip=flip,
        random_resized_crop=random_resized_crop,
        random_crop_epochs=random_crop_epochs,
    )


def _height_and_width(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Checks a size and returns it as (height, width)."""
    both = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(both) != 2 or not all(isinstance(pixels, int) and pixels >= 1 for pixels in both):
        raise DataError(
            f"{name} = {size}: must be at least 1 pixel, one number or (height, width)"
            + (", or 0 for no resizing" if name == "load_size" else "")
        )
    height, width = both
    return height, width
