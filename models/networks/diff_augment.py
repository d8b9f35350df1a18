"""DiffAugment: differentiable augmentation of what a discriminator sees, real and fake alike.

Source: Zhao et al., arXiv 2006.10738, and its code.
"""

import tensorflow as tf

POLICIES = ("colour", "translation", "cutout")

_TRANSLATION = 1 / 8  # of a side, at most, in each direction
_CUTOUT = 1 / 2  # of a side


def diff_augment(pictures, seeds, *, policy, name):
    """Changes every picture at random, by the parts of the policy in their order.

    - "colour": adds [-0.5, 0.5) to all values; scales the distance of each pixel's channels from their
      mean by [0, 2); scales the distance from the mean of the picture by [0.5, 1.5).
    - "translation": moves by up to an eighth of each side, and fills with zeros (grey).
    - "cutout": sets a rectangle of half of each side to zero; its centre is anywhere in the picture.

    The randomness is that of the step: it does not depend on replicas or micro-batches.

    Args:
      pictures: floating [B, H, W, C] in [-1, 1].
      seeds: `step.seeds`.
      policy: some of POLICIES.
      name: of the draws: calls with one name in one step draw alike (an input and its output), with
        different names differently (real and fake).

    Returns:
      The same shape and dtype; gradients flow to the pictures.

    Raises:
      ValueError: an unknown part of the policy.
    """
    for part in policy:
        if part not in POLICIES:
            raise ValueError(f"unknown augmentation {part!r}; choose among: {', '.join(POLICIES)}")
        draws = seeds.uniform(f"diff_augment/{name}/{part}", (3,))  # [B, 3]
        pictures = _PARTS[part](pictures, tf.cast(draws, pictures.dtype))
    return pictures


def _colour(x, draws):
    brightness, saturation, contrast = (draws[:, k, None, None, None] for k in range(3))  # [B, 1, 1, 1]
    x = x + brightness - 0.5
    grey = tf.reduce_mean(x, axis=3, keepdims=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)
    return (x - mean) * (contrast + 0.5) + mean


def _translation(x, draws):
    for axis in (1, 2):
        side = tf.shape(x)[axis]
        largest = _rounded(_TRANSLATION, side)
        shift = _whole_number(draws[:, axis], 2 * largest + 1) - largest  # [B]
        # Places beyond the picture are clipped to a border of zeros on each side of it.
        places = tf.clip_by_value(tf.range(side) + shift[:, None] + 1, 0, side + 1)  # [B, side]
        border = [[1, 1] if a == axis else [0, 0] for a in range(4)]
        x = tf.ensure_shape(tf.gather(tf.pad(x, border), places, axis=axis, batch_dims=1), x.shape)
    return x


def _cutout(x, draws):
    inside = []
    for axis in (1, 2):
        side = tf.shape(x)[axis]
        length = _rounded(_CUTOUT, side)
        first = _whole_number(draws[:, axis], side + (1 - length % 2)) - length // 2  # [B]
        places = tf.range(side)
        inside.append((places >= first[:, None]) & (places < first[:, None] + length))  # [B, side]
    hole = inside[0][:, :, None] & inside[1][:, None, :]  # [B, H, W]
    return tf.where(hole[..., None], tf.zeros([], x.dtype), x)


def _rounded(share, side):
    return tf.cast(share * tf.cast(side, tf.float32) + 0.5, tf.int32)


def _whole_number(draws, count):
    """[0, 1) -> 0, ..., count - 1, evenly."""
    return tf.minimum(tf.cast(draws * tf.cast(count, draws.dtype), tf.int32), count - 1)


_PARTS = {"colour": _colour, "translation": _translation, "cutout": _cutout}
