"""Several augmentations, one after the other."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from data.augmentation.geometry import Crop, Flip, RandomResizedCrop, Rotation
from data.roles import INPUT, SIDE_MAP, TARGET

_MOVING = (Crop, Flip, RandomResizedCrop, Rotation)
"""What only moves pixels, and so moves those of a map too; nothing else changes a map."""


def augment(augmentations: Sequence[Callable], images: dict[str, tf.Tensor], seed) -> dict[str, tf.Tensor]:
    """Applies augmentations in order.

    The one at place i draws from `tf.random.fold_in(seed, i)`: to append one, or to change the settings
    of one, leaves the draws of the others as they were; to insert or to remove one gives those after
    it other draws.

    Args:
        augmentations: objects of this package, functions (images, seed) -> images. `RandomResizedCrop`
            keeps the size here.
        images: {"input": ..., "target": ...} or one of the two, and "side_map" or not: float32 [H, W, C] in
            [0, 1] of one H and W, which may be dynamic; C is static and may differ.
        seed: int64 [2], such as `data.pipeline.cropping.example_seed` gives.

    Returns:
        {role: float32 [H, W, C] in [0, 1]} of the same roles and shapes.

    Raises:
        ValueError: a role is unknown, an image is not float32 [H, W, C], or static sizes differ.
        tf.errors.InvalidArgumentError: dynamic sizes differ.
    """
    images = _checked(images)
    for place, augmentation in enumerate(augmentations):
        # fold_in draws in the dtype of what it folds in: int64 keeps all bits of the seed.
        own_seed = tf.random.fold_in(seed, tf.constant(place, tf.int64))
        moved = images if isinstance(augmentation, _MOVING) else _without_map(images)
        if isinstance(augmentation, RandomResizedCrop):
            images = images | augmentation(moved, None, own_seed)
        else:
            images = images | augmentation(moved, own_seed)
    return images


def _without_map(images):
    return {role: image for role, image in images.items() if role != SIDE_MAP}


def _checked(images):
    images = {role: tf.convert_to_tensor(image) for role, image in images.items()}
    roles = {INPUT, TARGET}
    kinds = {role: f"{image.dtype.name} {image.shape}" for role, image in images.items()}
    if not images.keys() & roles or not images.keys() <= {*roles, SIDE_MAP}:
        raise ValueError(f"augment takes images named 'input' and 'target', not {sorted(images)}.")
    for image in images.values():
        if image.dtype != tf.float32 or image.shape.rank != 3 or image.shape[-1] is None:
            raise ValueError(f"augment takes float32 [H, W, C] with a static C, not {kinds}.")
    if len(images) == 1:
        return images
    given, *others = images.values()
    if not all(given.shape[:2].is_compatible_with(other.shape[:2]) for other in others):
        raise ValueError(f"augment takes images of one height and width, not {kinds}.")
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
