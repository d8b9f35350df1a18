"""Images of classes as one-hot images, with a channel for each class, and back."""

import dataclasses

import numpy as np
import tensorflow as tf

Classes = tuple[tuple[int, ...], ...]
"""The pixel value of each class: whole numbers, one for each channel."""

_BASE = 2**16
"""Pixels of several channels are compared as one number with digits of this base."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneHot:
    """The classes of an image: [..., C] with whole numbers becomes [..., K] with 0 and 1.

    A pixel that is no class, such as padding, becomes 0 in all channels.

    Attributes:
      classes: K pixel values, in the order of the channels.
      value_range: (lowest, highest) value that the stored image can have.
    """

    classes: Classes
    value_range: tuple[float, float]

    def encode(self, images: tf.Tensor, *, low: float, high: float) -> tf.Tensor:
        """Makes images one-hot.

        Args:
          images: [..., C], of any real dtype.
          low: the value in `images` that stands for the lowest stored value.
          high: the value in `images` that stands for the highest one.

        Returns:
          float32 [..., K].
        """
        lowest, highest = self.value_range
        values = tf.cast(images, tf.float32)
        if (low, high) != (lowest, highest):
            values = (values - low) / (high - low) * (highest - lowest) + lowest
        digits = tf.cast(tf.round(values), tf.int64)
        places = np.array([_BASE**place for place in range(images.shape[-1])], np.int64)
        pixels = tf.reduce_sum(digits * places, axis=-1)  # [...]
        classes = np.asarray(self.classes, np.int64) @ places  # [K]
        return tf.cast(pixels[..., None] == classes, tf.float32)

    def decode(self, one_hot: tf.Tensor) -> tf.Tensor:
        """Makes pictures of one-hot images, for display.

        Args:
          one_hot: floating [..., K].

        Returns:
          uint8 [..., C], the stored value range as 0 to 255; black where there is no class.
        """
        low, high = self.value_range
        levels = (np.asarray(self.classes, np.float64) - low) / (high - low) * 255.0  # [K, C]
        levels = tf.constant(np.floor(levels + 0.5), tf.float32)
        return tf.cast(tf.tensordot(tf.cast(one_hot, tf.float32), levels, 1), tf.uint8)

    def decode_apart(self, one_hot: tf.Tensor) -> tf.Tensor:
        """Makes grey pictures in which neighbouring numbers of classes are easy to tell apart.

        Args:
          one_hot: floating [..., K].

        Returns:
          uint8 [..., 1]: class k of K as k / (K - 1) of white; black where there is no class.
        """
        levels = tf.constant(np.linspace(0, 255, len(self.classes))[:, None], tf.float32)
        return tf.cast(tf.tensordot(tf.cast(one_hot, tf.float32), levels, 1), tf.uint8)
