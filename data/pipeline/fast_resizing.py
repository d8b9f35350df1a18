"""Resizing before anything is random: whole pictures, once, by what is fastest.

The usual way, `data.pipeline.resizing`, computes for each example only the part that is drawn, with Pillow's
pixels. Here, whole images are resized to the load size first, so that
- a cache can keep them, and an example from it is only cut and mirrored;
- JPEG files of at least twice that size are decoded at a reduced scale;
- 8-bit pictures that grow use TensorFlow's bicubic kernel. It has no antialiasing, which they do not need.
The random part is drawn by `data.pipeline.cropping` as ever, which only cuts images that have the load size.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from data.pipeline import resizing
from data.pipeline.cropping import PAD, ResizeAndCrop
from data.pipeline.example_decoder import ExampleDecoder
from data.tfrecords.image_decoding import ReducedImage


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastDecoder:
    """Decodes records into images of the size from which the random part is cut.

    Attributes:
      decoder: of the records.
      resize_and_crop: with a load_size, and without a random_resized_crop.
    """

    decoder: ExampleDecoder
    resize_and_crop: ResizeAndCrop

    def decode(
        self, record: tf.Tensor, *, epoch: int | tf.Tensor = 0, for_cache: bool = False
    ) -> tuple[tf.Tensor, ...]:
        """Decodes a record, in the graph.

        Args:
          record: string [].
          epoch: of the example, from 0.
          for_cache: whether the images will be read again: then they have the load size in any case.

        Returns:
          What `ExampleDecoder.decode` returns. If resizing whole images would gain nothing, they are as
          stored, and are resized after the random part is drawn.

        Raises:
          tf.errors.InvalidArgumentError: at run time, as `ExampleDecoder.decode`.
        """
        frame = self.resize_and_crop
        assert frame.load_size is not None
        images, vectors = self.decoder.decode_reduced(record, frame.load_size)
        if frame.random_crop_epochs is None:
            return (*self._resized(images, frame.load_size, for_cache), *vectors)
        resized = tf.cond(
            tf.convert_to_tensor(epoch) < frame.random_crop_epochs,
            lambda: self._resized(images, frame.load_size, for_cache),
            lambda: self._resized(images, frame.crop_size, for_cache),
        )
        return (*resized, *vectors)

    def _resized(
        self, images: Sequence[ReducedImage], size: tuple[int, int], in_any_case: bool
    ) -> tuple[tf.Tensor, ...]:
        """All images of an example at a size; or none, if that gains nothing."""
        kinds = list(zip(images, self.decoder.labels, self.decoder.padding, strict=True))

        def at_size() -> tuple[tf.Tensor, ...]:
            return tuple(
                self._at_size(image, size, is_labels=is_labels, padding=padding)
                for image, is_labels, padding in kinds
            )

        if in_any_case:
            return at_size()
        gains = [image.is_reduced for image in images]
        gains += [_grows(image, size) for image, is_labels, _ in kinds if _is_8_bit(image, is_labels)]
        return tf.cond(
            tf.reduce_any(tf.stack(gains)), at_size, lambda: tuple(image.pixels for image in images)
        )

    def _at_size(
        self, image: ReducedImage, size: tuple[int, int], *, is_labels: bool, padding: float
    ) -> tf.Tensor:
        """An image resized to a size, or fitted into it."""
        height, width = size
        fits = self.resize_and_crop.resize == PAD

        def banded() -> tf.Tensor:
            if fits:
                return resizing.resize_with_pad(
                    image.pixels,
                    height=height,
                    width=width,
                    value=padding,
                    is_labels=is_labels,
                    extent=image.extent,
                )
            return resizing.resize(
                image.pixels, height=height, width=width, is_labels=is_labels, extent=image.extent
            )

        if not _is_8_bit(image, is_labels):
            return banded()
        inner = resizing.fitted_size(image.extent[0], image.extent[1], height, width) if fits else size
        return tf.cond(_grows(image, inner), lambda: _grown(image.pixels, inner, size, padding), banded)


def _is_8_bit(image: ReducedImage, is_labels: bool) -> bool:
    """Whether an image is a picture of 8 bits."""
    return image.pixels.dtype == tf.uint8 and not is_labels


def _grows(image: ReducedImage, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Whether an image that is not reduced becomes larger, and no side of it smaller: bool []."""
    grows = tf.cast(tf.stack(size), tf.float64) - image.extent
    return ~image.is_reduced & tf.reduce_all(grows >= 0) & tf.reduce_any(grows > 0)


def _grown(
    pixels: tf.Tensor, inner: Sequence[int | tf.Tensor], size: tuple[int, int], padding: float
) -> tf.Tensor:
    """An 8-bit picture made larger by TensorFlow's kernel, then padded: uint8 [*size, C]."""
    resized = tf.image.resize(pixels, tf.stack(inner), tf.image.ResizeMethod.BICUBIC)  # float32, overshoots
    resized = tf.cast(tf.clip_by_value(resized, 0.0, 255.0) + 0.5, tf.uint8)
    before = [(outer - inside) // 2 for outer, inside in zip(size, inner, strict=True)]
    after = [outer - inside - first for outer, inside, first in zip(size, inner, before, strict=True)]
    if any(tf.is_tensor(length) for length in inner):
        paddings = [[before[0], after[0]], [before[1], after[1]], [0, 0]]
        resized = tf.pad(resized, paddings, constant_values=tf.cast(padding, tf.uint8))
    return tf.ensure_shape(resized, [*size, pixels.shape[-1]])
