"""Functions of batches of images, traced once for each shape of an image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from engine.evaluation.picture_scale import PictureScale


class ImageFunction:
    """A function that TensorFlow traces for each scale, shape and dtype of images, for any batch size.

    With one `tf.function` for all, heights, widths and channels would become unknown where two kinds of
    images take turns; metrics and networks need them.

    Args:
      function: takes batches of images [B, H, W, C], and `scale`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._traced: dict[tuple, Any] = {}

    def __call__(self, *batches: tf.Tensor, scale: PictureScale) -> Any:
        """Calls the function.

        Args:
          *batches: of images.
          scale: of all of them.
        """
        return self._function_of(batches, scale)(*batches)

    def trace(self, *specs: tf.TensorSpec, scale: PictureScale) -> None:
        """Traces the function for batches of any size, and so raises what it raises for such images.

        Args:
          *specs: of batches of images, [None, H, W, C].
          scale: of all of them.
        """
        self._function_of(specs, scale).get_concrete_function(*specs)

    def _function_of(self, batches: Sequence[tf.Tensor | tf.TensorSpec], scale: PictureScale) -> Any:
        key = (scale, *((tuple(images.shape[1:]), images.dtype) for images in batches))
        if key not in self._traced:
            self._traced[key] = tf.function(
                functools.partial(self._function, scale=scale), autograph=False, reduce_retracing=True
            )
        return self._traced[key]
