"""Nearest-neighbour resizing, for images of classes, whose values must not be mixed."""

import tensorflow as tf


def nearest_indices(outputs: tf.Tensor, *, length: int | tf.Tensor, new_length: int | tf.Tensor) -> tf.Tensor:
    """Returns the pixel of an axis that each pixel of the resized axis shows.

    It is the one that holds the centre of the resized pixel: floor((k + 1/2) length / new_length), as in
    Pillow, in whole numbers, so that no rounding decides. Centres are those of the bicubic resize, so both
    place everything alike.

    Args:
      outputs: int [N], pixels of the resized axis; those outside it give the pixel at the border.
      length: of the axis before resizing.
      new_length: of the axis after resizing.

    Returns:
      int32 [N], from 0 to length - 1.
    """
    length, new_length = tf.cast(length, tf.int64), tf.cast(new_length, tf.int64)
    indices = (2 * tf.cast(outputs, tf.int64) + 1) * length // (2 * new_length)
    return tf.cast(tf.clip_by_value(indices, 0, length - 1), tf.int32)


def nearest(image: tf.Tensor, *, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Resizes an image without making new values.

    Args:
      image: [H, W, C].
      height: new height in pixels, a number or an int32 scalar.
      width: new width in pixels.

    Returns:
      [height, width, C] of the same dtype.
    """
    for axis, new_length in enumerate((height, width)):
        indices = nearest_indices(tf.range(new_length), length=tf.shape(image)[axis], new_length=new_length)
        image = tf.gather(image, indices, axis=axis)
    return image
