"""A history of fakes for a discriminator (Shrivastava et al., arXiv 1612.07828, section 2.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePool:
    """One pool of pictures over all replicas, in the task's state and so in checkpoints.

    Fakes of all replicas enter in example order, so every replica holds the same pool, and it does not
    depend on their number, on micro-batches or on restarts.

    Args:
      name: of its variables in the state, `<name>_images` and `<name>_stored`, and of its randomness.
      size: pictures it holds; 0 makes no pool.
    """

    name: str
    size: int

    def __post_init__(self):
        if self.size < 0:
            raise ConfigurationError(f"{self.name}: {self.size} pictures; at least 0, which makes no pool")

    def state(self, shape: Sequence[int]) -> dict[str, tf.Variable]:
        """Its variables, for `Task.state`: pictures of this shape, [H, W, C], in Keras's floatx."""
        if not self.size:
            return {}
        images = tf.zeros([self.size, *shape], keras.config.floatx())  # [size, H, W, C]
        return {
            f"{self.name}_images": tf.Variable(images, trainable=False, name=f"{self.name}_images"),
            f"{self.name}_stored": tf.Variable(0, trainable=False, name=f"{self.name}_stored"),
        }

    def exchange(self, step: Step, fakes: tf.Tensor) -> tf.Tensor:
        """This replica's fakes [B, H, W, C] -> as many of the pool or themselves, without gradient.

        Called in a loss, once a step. See `exchange`; each example draws its own chance and slot.
        """
        if not self.size:
            return tf.stop_gradient(fakes)
        chances = step.gather(step.seeds.uniform(f"{self.name}_chance", ()))  # [examples]
        slots = step.gather(step.seeds.uniform(f"{self.name}_slot", ()))  # [examples]
        returned = exchange(
            step.state[f"{self.name}_images"],
            step.state[f"{self.name}_stored"],
            step.gather(tf.stop_gradient(fakes)),
            chances=chances,
            slots=tf.cast(self.size * slots, tf.int32),
        )
        return tf.ensure_shape(step.own(returned), fakes.shape)  # loops forget it


def exchange(
    images: tf.Variable, stored: tf.Variable, fakes: tf.Tensor, *, chances: tf.Tensor, slots: tf.Tensor
) -> tf.Tensor:
    """Passes fakes through a pool, one after the other; the published CycleGAN's `ImagePool.query`.

    While the pool fills, each is stored and returned. Then, where its chance is above 0.5, it takes the
    place of the picture in its slot, which is returned; else it is returned and not stored.

    Args:
      images: [size, H, W, C], assigned.
      stored: int32, how many of them are pictures yet; assigned.
      fakes: [n, H, W, C] of the dtype of images.
      chances: [n] in [0, 1).
      slots: int32 [n] in [0, size).

    Returns:
      [n, H, W, C].
    """
    size, count = images.shape[0], tf.shape(fakes)[0]

    # Pictures go by number and are copied once, at the end: slot k's as it was before is number k, fake i
    # is number size + i.
    def one(i, contents, filled, places, returned):
        is_filling = filled < size
        # Not slots[i]: XLA compiles a slice anew for each value of i, and tf.gather once.
        place = tf.where(is_filling, filled, tf.gather(slots, i))
        is_swapped = ~is_filling & (tf.gather(chances, i) > 0.5)
        kept = tf.where(is_filling | is_swapped, size + i, tf.gather(contents, place))
        returned = returned.write(i, tf.where(is_swapped, tf.gather(contents, place), size + i))
        contents = tf.tensor_scatter_nd_update(contents, [[place]], [kept])
        return i + 1, contents, tf.minimum(filled + 1, size), places.write(i, place), returned

    places, returned = (tf.TensorArray(tf.int32, count, element_shape=()) for _ in range(2))
    _, contents, filled, places, returned = tf.while_loop(
        lambda i, *_: i < count, one, (0, tf.range(size), stored.read_value(), places, returned)
    )

    def pictures(numbers):
        is_fake = numbers[:, tf.newaxis, tf.newaxis, tf.newaxis] >= size
        new = tf.gather(fakes, tf.maximum(numbers - size, 0))
        return tf.where(is_fake, new, tf.gather(images, tf.minimum(numbers, size - 1)))  # [n, H, W, C]

    places, returned = places.stack(), pictures(returned.stack())
    # Where a slot was hit twice, both rows are what it holds in the end.
    changed = tf.IndexedSlices(pictures(tf.gather(contents, places)), places)
    images.scatter_update(changed)
    stored.assign(filled)
    return returned
