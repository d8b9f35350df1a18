"""Resizing, random cropping and flipping of uint8 images; random by (seed, epoch, example id)."""

import tensorflow as tf


def example_seed(seed, epoch, example_id):
    """The stateless seed of one example in one epoch: int64 [2].

    It depends on nothing else, so that an example is augmented alike whatever the batch size, the
    number of workers, or the position at which the stream was opened.
    """
    # fold_in draws in the dtype of what it folds in: all of it must be int64 to be reproducible.
    of_epoch = tf.random.fold_in(tf.constant([seed, 0], tf.int64), tf.cast(epoch, tf.int64))
    return tf.random.fold_in(of_epoch, tf.cast(example_id, tf.int64))


def resize(image, *, height, width):
    """Resizes as Pillow's bicubic filter does: Keys's kernel with a = -0.5, whole grey levels.

    The kernel is widened (antialiasing) along a side that shrinks, and only there. Columns are
    resampled first and rounded to grey levels, then rows, as Pillow does (its newer versions begin
    with the rows of some images whose height shrinks); a single pass differs from that by several
    grey levels at edges.

    Args:
        image: uint8 [H, W, C].
        height, width: new size in pixels.

    Returns:
        uint8 [height, width, C].
    """
    rows = tf.shape(image)[0]

    def resized():
        return _resample(_resample(image, [rows, width]), [height, width])

    same_size = tf.reduce_all(tf.shape(image)[:2] == [height, width])
    image = tf.cond(same_size, lambda: image, resized)
    return tf.ensure_shape(image, [height, width, image.shape[-1]])


def _resample(image, size):
    """Bicubic resampling to `size`, rounded and clipped: uint8 [H, W, C] -> uint8 [*size, C]."""
    # With antialias=True TensorFlow widens the kernel by max(1, H / height): not when enlarging.
    levels = tf.image.resize(image, size, method="bicubic", antialias=True)
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


def centre_crop(image, *, size):
    """Cuts the middle out: [H, W, C] -> [size, size, C]; H and W at least `size`."""
    top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
    return tf.slice(image, [top, left, 0], [size, size, image.shape[-1]])


def random_crop_and_flip(images, *, size, flip, seed):
    """Cuts the same random square out of all images and mirrors all or none.

    Args:
        images: sequence of [H, W, C] tensors of one H and W, at least `size`; C may differ.
        size: side of the square in pixels; every place is equally likely.
        flip: mirror left and right with probability 0.5.
        seed: int64 [2], see `example_seed`.

    Returns:
        A tuple of [size, size, C] tensors.
    """
    height, width = tf.unstack(tf.shape(images[0])[:2])
    draws = tf.random.split(seed, 3)
    top = tf.random.stateless_uniform([], draws[0], 0, height - size + 1, tf.int32)
    left = tf.random.stateless_uniform([], draws[1], 0, width - size + 1, tf.int32)
    mirror = flip and tf.random.stateless_uniform([], draws[2]) < 0.5
    cut = []
    for image in images:
        image = tf.slice(image, [top, left, 0], [size, size, image.shape[-1]])
        cut.append(image[:, ::-1] if mirror else image)
    return tuple(cut)
