"""Applying several augmentations, one after the other."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

from data.augmentation.geometry import Crop, Flip, RandomResizedCrop, Rotation
from data.augmentation.random_degradations import RandomDegradations
from data.roles import INPUT, SIDE_MAP, TARGET

_GEOMETRIC = (Crop, Flip, RandomResizedCrop, Rotation)
"""Augmentations that only move pixels. They apply to side maps and labels too; no others do."""

_INTERPOLATING = (RandomResizedCrop, Rotation)
"""Geometric augmentations that make new values between the pixels, so they have to know the labels."""


def augment(
    augmentations: Sequence[Callable],
    images: dict[str, tf.Tensor],
    seed: tf.Tensor,
    *,
    labels: Collection[str] = (),
    position: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
    """Applies augmentations in order.

    Augmentation i draws from `tf.random.fold_in(seed, i)`. So appending one or changing its settings does not
    change the random draws of the others; inserting or removing one changes those after it.

    Args:
      augmentations: objects of this package, functions (images, seed) -> images. `RandomResizedCrop` keeps
        the size of the images here.
      images: {"input": ..., "target": ...} or one of the two, with or without "side_map": float32 [H, W, C]
        in [0, 1] of one H and W, which may be dynamic; C is static and may differ.
      seed: int64 [2], for example of `data.pipeline.cropping.example_seed`.
      labels: roles of the images whose values are classes: they are moved without mixing pixels, and their
        values never change.
      position: examples drawn before this one since the start of the run, int64, which the strength of
        `RandomDegradations` depends on; None is evaluation, at full strength.

    Returns:
      {role: float32 [H, W, C] in [0, 1]} of the same roles and shapes.

    Raises:
      ValueError: a role is unknown, an image is not float32 [H, W, C], or static sizes differ.
      tf.errors.InvalidArgumentError: dynamic sizes differ.
    """
    images = _checked(images)
    for number, augmentation in enumerate(augmentations):
        # fold_in draws in the dtype of its argument: int64 keeps all bits of the seed.
        own_seed = tf.random.fold_in(seed, tf.constant(number, tf.int64))
        moves = isinstance(augmentation, _GEOMETRIC)
        kept = () if moves else (SIDE_MAP, *labels)
        changed = {role: image for role, image in images.items() if role not in kept}
        if not changed:
            continue
        arguments = (None, own_seed) if isinstance(augmentation, RandomResizedCrop) else (own_seed,)
        named: dict[str, Any] = {}
        if labels and isinstance(augmentation, _INTERPOLATING):
            named["labels"] = labels
        if isinstance(augmentation, RandomDegradations):
            named["strength"] = augmentation.strength_at(position)
        images = images | augmentation(changed, *arguments, **named)
    return images


def not_geometric(augmentations: Sequence[Callable]) -> list[str]:
    """Returns the names of those augmentations that do not apply to labels."""
    return [
        type(augmentation).__name__
        for augmentation in augmentations
        if not isinstance(augmentation, _GEOMETRIC)
    ]


def _checked(images: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    images = {role: tf.convert_to_tensor(image) for role, image in images.items()}
    roles = {INPUT, TARGET}
    kinds = {role: f"{image.dtype.name} {image.shape}" for role, image in images.items()}
    if not images.keys() & roles or not images.keys() <= {*roles, SIDE_MAP}:
        raise ValueError(f"augment: takes images named 'input' and 'target', not {sorted(images)}")
    for image in images.values():
        if image.dtype != tf.float32 or image.shape.rank != 3 or image.shape[-1] is None:
            raise ValueError(f"augment: takes float32 [H, W, C] with a static C, not {kinds}")
    if len(images) == 1:
        return images
    given, *others = images.values()
    if not all(given.shape[:2].is_compatible_with(other.shape[:2]) for other in others):
        raise ValueError(f"augment: takes images of one height and width, not {kinds}")
    if all(image.shape[:2].is_fully_defined() for image in images.values()):
        return images
    same = [
        tf.debugging.assert_equal(
            tf.shape(given)[:2], tf.shape(other)[:2], f"{' and '.join(images)} differ in height or width"
        )
        for other in others
    ]
    with tf.control_dependencies([check for check in same if check is not None]):
        return {role: tf.identity(image) for role, image in images.items()}
