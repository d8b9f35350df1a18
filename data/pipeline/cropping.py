"""From a stored image to the part of it that a network sees: load size, crop, flip."""

import dataclasses

import tensorflow as tf

from data.augmentation.geometry import RandomResizedCrop
from data.errors import DataError
from data.pipeline import resizing

RESIZE, PAD = "resize", "resize_with_pad"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """How images of any size become images of one size.

    Attributes:
        load_size: (height, width) in pixels before cropping; None keeps the stored size.
        crop_size: (height, width) cut out of that.
        resize: "resize" takes no account of the aspect ratio, as pix2pix does; "resize_with_pad" keeps
            it, and fills what is left on both sides with `padding`.
        flip: mirror half of the training examples left and right.
        random_resized_crop: what training cuts out of the stored image and resizes to crop_size, in the
            place of load_size and a crop; None for these.
    """

    load_size: tuple[int, int] | None
    crop_size: tuple[int, int]
    resize: str = RESIZE
    flip: bool = True
    random_resized_crop: RandomResizedCrop | None = None

    def training(self, images, seed, *, padding):
        """Gives the same random part of all images of an example, or its mirror image.

        Only that part is resampled, so that the cost is that of the crop.

        Args:
            images: sequence of [H, W, C] of one H and W, uint8, uint16 or float32; at least crop_size
                if there is no load_size; C may differ.
            seed: int64 [2], see `example_seed`; every place is equally likely.
            padding: the value beside an image, in its own range, one for each.

        Returns:
            A tuple of [*crop_size, C] of the dtypes of `images`.
        """
        height, width = self.crop_size
        draws = tf.random.split(seed, 3)
        mirrored = tf.random.stateless_uniform([], draws[2]) < 0.5 if self.flip else False
        stored_size = tf.unstack(tf.shape(images[0])[:2])
        if self.random_resized_crop is not None:
            box = self.random_resized_crop.draw(draws[0], *stored_size)
            corner, extent = [box.top, box.left, 0], [box.height, box.width]
            boxes = [tf.slice(image, corner, [*extent, image.shape[-1]]) for image in images]
            whole = resizing.Window(
                size=self.crop_size, top=0, left=0, height=height, width=width, mirrored=mirrored
            )
            return resizing.resize_window(boxes, whole)
        size = stored_size if self.load_size is None else self.load_size
        top = tf.random.stateless_uniform([], draws[0], 0, size[0] - height + 1, tf.int32)
        left = tf.random.stateless_uniform([], draws[1], 0, size[1] - width + 1, tf.int32)
        return self._part(images, size, (top, left), mirrored, padding)

    def evaluation(self, images, *, padding):
        """Gives all of each image at crop_size or, if there is no load_size, its middle.

        Args, Returns: as of `training`.
        """
        height, width = self.crop_size
        if self.load_size is not None:
            return self._part(images, self.crop_size, (0, 0), False, padding)
        size = tf.unstack(tf.shape(images[0])[:2])
        corner = ((size[0] - height) // 2, (size[1] - width) // 2)
        return self._part(images, size, corner, False, padding)

    def check_sizes(self, metadata, *, where):
        """Raises DataError if images that are not resized are too small to cut from.

        Args:
            metadata: of the data set; tells of its smallest images.
            where: its directory, for the message.
        """
        if self.load_size is not None:
            return
        for side, crop in zip(("height", "width"), self.crop_size, strict=True):
            smallest = metadata.get(f"smallest_{side}")
            if smallest and smallest["pixels"] < crop:
                raise DataError(
                    f"{where}: crop_size = {self.crop_size} does not fit into {smallest['name']!r}, whose "
                    f"{side} is {smallest['pixels']}; lower crop_size, or set load_size to resize the images."
                )

    def _part(self, images, size, corner, mirrored, padding):
        """The part at `corner` (top, left) of all images at `size`, mirrored or not."""
        height, width = self.crop_size
        whole = resizing.Window(
            size=size, top=corner[0], left=corner[1], height=height, width=width, mirrored=mirrored
        )
        if self.load_size is None:
            return resizing.cut_window(images, whole)
        if self.resize != PAD:
            return resizing.resize_window(images, whole)
        padded = tuple(
            resizing.resize_with_pad(image, height=size[0], width=size[1], value=value)
            for image, value in zip(images, padding, strict=True)
        )
        return resizing.cut_window(padded, whole)


def example_seed(seed, epoch, example_id):
    """The stateless seed of one example in one epoch: int64 [2].

    It depends on nothing else, so that an example is augmented alike whatever the batch size, the
    number of workers, or the position at which the stream was opened.
    """
    # fold_in draws in the dtype of what it folds in: all of it must be int64 to be reproducible.
    of_epoch = tf.random.fold_in(tf.constant([seed, 0], tf.int64), tf.cast(epoch, tf.int64))
    return tf.random.fold_in(of_epoch, tf.cast(example_id, tf.int64))


def framing_of(*, load_size, crop_size, resize, flip, random_resized_crop):
    """Makes a `Framing` of settings as a user writes them: a size is one number or (height, width).

    Raises:
        DataError: names the setting that cannot be used.
    """
    crop = _size_of("crop_size", crop_size, least=1)
    load = None if load_size == 0 else _size_of("load_size", load_size, least=1)
    if load and any(large < small for large, small in zip(load, crop, strict=True)):
        raise DataError(
            f"crop_size = {crop_size} is larger than load_size = {load_size}: a crop must fit into the "
            "resized image; raise load_size or lower crop_size."
        )
    if resize not in (RESIZE, PAD):
        raise DataError(f"resize = {resize!r}: must be {RESIZE!r} or {PAD!r}.")
    return Framing(
        load_size=load,
        crop_size=crop,
        resize=resize,
        flip=flip,
        random_resized_crop=random_resized_crop,
    )


def _size_of(name, size, *, least):
    """(height, width) of one number or two."""
    both = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(both) != 2 or not all(isinstance(side, int) and side >= least for side in both):
        raise DataError(
            f"{name} = {size}: must be at least {least} pixel, one number or (height, width)"
            + (", or 0 for no resizing." if name == "load_size" else ".")
        )
    return both
