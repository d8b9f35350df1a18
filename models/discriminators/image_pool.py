"""A history of fakes for a discriminator (Shrivastava et al., arXiv 1612.07828, section 2.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePool:
    """One pool of images for all replicas, in the task's state and so in checkpoints.

    The fakes of all replicas enter in example order. So each replica has the same pool, and the pool depends
    neither on their number nor on micro-batches or restarts.

    Attributes:
      name: prefix of its variables in the state, `<name>_images` and `<name>_stored`, and of its random
        numbers.
      size: number of images; 0 for no pool.

    Raises:
      ConfigurationError: the size is negative.
    """

    name: str
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigurationError(f"{self.name}: cannot hold {self.size} images; set 0 for no pool")

    def state(self, shape: Sequence[int]) -> dict[str, tf.Variable]:
        """Builds its variables, for `Task.state`.

        Args:
          shape: [H, W, C] of the images, which are in Keras's floatx.
        """
        if not self.size:
            return {}
        images = tf.zeros([self.size, *shape], keras.config.floatx())  # [size, H, W, C]
        return {
            f"{self.name}_images": tf.Variable(images, trainable=False, name=f"{self.name}_images"),
            f"{self.name}_stored": tf.Variable(0, trainable=False, name=f"{self.name}_stored"),
        }


def pass_through_pools(
    pools: Mapping[str, ImagePool], step: Step, fakes: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Passes this replica's fakes through pools; call it in a loss, once a step.

    All pools together take one collective.

    Args:
      pools: by any names.
      step: the current step; each example draws its own chance and slot from its seeds.
      fakes: for each pool [B, H, W, C].

    Returns:
      For each pool the fakes or images from it, see `exchange`: [B, H, W, C], without gradient.
    """
    fakes = {key: tf.stop_gradient(images) for key, images in fakes.items()}
    sized = {key: pool for key, pool in pools.items() if pool.size}
    if not sized:
        return fakes
    own = {
        key: (fakes[key], *(step.seeds.uniform(f"{pool.name}_{what}", ()) for what in ("chance", "slot")))
        for key, pool in sized.items()
    }
    results = dict(fakes)
    for key, (everybody, chances, slots) in step.gather(own).items():  # [examples, ...]
        pool = sized[key]
        returned = exchange(
            step.state[f"{pool.name}_images"],
            step.state[f"{pool.name}_stored"],
            everybody,
            chances=chances,
            slots=tf.cast(pool.size * slots, tf.int32),
        )
        results[key] = tf.ensure_shape(step.own(returned), fakes[key].shape)  # tf.while_loop loses it
    return results


def exchange(
    images: tf.Variable, stored: tf.Variable, fakes: tf.Tensor, *, chances: tf.Tensor, slots: tf.Tensor
) -> tf.Tensor:
    """Passes fakes through a pool, one after the other; the published CycleGAN's `ImagePool.query`.

    While the pool fills, it stores each fake and returns it. Then a fake whose chance is above 0.5 replaces
    the image in its slot, which is returned; another fake is returned and not stored.

    Args:
      images: [size, H, W, C], updated in place.
      stored: int32, how many of them are set; updated in place.
      fakes: [n, H, W, C] of the same dtype.
      chances: [n] in [0, 1).
      slots: int32 [n] in [0, size).

    Returns:
      [n, H, W, C].
    """
    size, count = images.shape[0], tf.shape(fakes)[0]

    # The loop moves numbers, and images are copied once, at the end: number k < size is slot k's image before
    # the call, number size + i is fake i. tf.gather, since XLA compiles an index in brackets anew for each of
    # its values.
    def pass_fake(
        i: tf.Tensor,
        contents: tf.Tensor,
        filled: tf.Tensor,
        places: tf.TensorArray,
        returned: tf.TensorArray,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray, tf.TensorArray]:
        is_filling = filled < size
        place = tf.where(is_filling, filled, tf.gather(slots, i))
        is_swapped = ~is_filling & (tf.gather(chances, i) > 0.5)
        kept = tf.where(is_filling | is_swapped, size + i, tf.gather(contents, place))
        returned = returned.write(i, tf.where(is_swapped, tf.gather(contents, place), size + i))
        contents = tf.tensor_scatter_nd_update(contents, [[place]], [kept])
        return i + 1, contents, tf.minimum(filled + 1, size), places.write(i, place), returned

    places, returned = (tf.TensorArray(tf.int32, count, element_shape=()) for _ in range(2))
    _, contents, filled, places, returned = tf.while_loop(
        lambda i, *_: i < count, pass_fake, (0, tf.range(size), stored.read_value(), places, returned)
    )

    def images_of(numbers: tf.Tensor) -> tf.Tensor:
        is_fake = numbers[:, tf.newaxis, tf.newaxis, tf.newaxis] >= size
        new = tf.gather(fakes, tf.maximum(numbers - size, 0))
        return tf.where(is_fake, new, tf.gather(images, tf.minimum(numbers, size - 1)))  # [n, H, W, C]

    places, returned = places.stack(), images_of(returned.stack())
    # If a slot occurs twice, both rows hold its final image.
    changed = tf.IndexedSlices(images_of(tf.gather(contents, places)), places)
    images.scatter_update(changed)
    stored.assign(filled)
    return returned
