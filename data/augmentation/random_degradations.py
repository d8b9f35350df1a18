"""Domain randomisation: degradations composed at random, which a curriculum strengthens over the run.

A network that restores images should know degradations that nobody measured. So the degradations of an
example are a random choice in a random order, as in BSRGAN (Zhang et al., arXiv 2103.14006), and maybe
several times over, as in Real-ESRGAN (Wang et al., arXiv 2107.10833).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence

import tensorflow as tf

from data.augmentation import base
from data.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomDegradations:
    """Applies a random subset of degradations in random order, each with parameters of its own draw.

    The strength depends only on the position of the example in the run: it rises linearly from
    `initial_strength` at its start to 1 after `ramp_examples`, and stays there. Evaluation uses 1.

    Attributes:
      degradations: those of `data.augmentation.degradation`, or others that take a strength.
      count: smallest and largest number applied in a round; all numbers are equally likely, and so are all
        choices and orders of so many. None: from 1 to all.
      rounds: how many times degradations are chosen and applied.
      initial_strength: strength at the start of the run, from 0 to 1.
      ramp_examples: length of the rise in examples. A text such as "20ep" or "50%" of the run is a length
        that the engine converts. 0: full strength from the start.

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    degradations: Sequence[Callable]
    count: tuple[int, int] | None = None
    rounds: int = 1
    initial_strength: float = 0.0
    ramp_examples: int | str = 0

    def __post_init__(self) -> None:
        if not self.degradations or not all(map(_takes_strength, self.degradations)):
            raise DataError(
                "RandomDegradations.degradations: must be degradations, such as @degradation.Noise(); "
                "augmentations that take no strength stand beside RandomDegradations"
            )
        if self.count is not None:
            base.check_range(self, "count", minimum=0, maximum=len(self.degradations), whole=True)
        base.check_whole_number(self, "rounds", minimum=1)
        base.check_number(self, "initial_strength", minimum=0, maximum=1)
        if not isinstance(self.ramp_examples, str):
            base.check_whole_number(self, "ramp_examples", minimum=0)

    def strength_at(self, position: tf.Tensor | None) -> tf.Tensor | None:
        """Returns the strength for an example: float32 scalar in [0, 1]; None is 1.

        Args:
          position: examples drawn before it since the start of the run, int64; None in evaluation.

        Raises:
          DataError: `ramp_examples` is a text, which only a run can convert.
        """
        if position is None or self.ramp_examples == 0:
            return None
        if isinstance(self.ramp_examples, str):
            raise DataError(
                f"RandomDegradations.ramp_examples = {self.ramp_examples!r}: depends on a run, and there is "
                "no run; give a number of examples"
            )
        part = tf.minimum(tf.cast(position, tf.float64) / self.ramp_examples, 1.0)
        return tf.cast(self.initial_strength + (1.0 - self.initial_strength) * part, tf.float32)

    def draw(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws which degradations apply, in order, for a seed int64 [2]: indices, int32 [applied]."""
        low, high = self.count or (1, len(self.degradations))
        rounds = []
        for of_round in tf.unstack(tf.random.split(seed, self.rounds)):
            number_seed, order_seed = tf.unstack(tf.random.split(of_round, 2))
            order = tf.range(len(self.degradations))
            order = tf.random.experimental.stateless_shuffle(order, order_seed)
            rounds.append(order[: tf.random.stateless_uniform([], number_seed, low, high + 1, tf.int32)])
        return tf.concat(rounds, axis=0)

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, strength: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same.

        Args:
          images: by role.
          seed: int64 [2].
          strength: float32 scalar in [0, 1], which each degradation gets; None is 1.
        """
        choice_seed, change_seed = tf.unstack(tf.random.split(seed, 2))
        order = self.draw(choice_seed)

        def body(number: tf.Tensor, so_far: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            own_seed = tf.random.fold_in(change_seed, tf.cast(number, tf.int64))
            changes = [functools.partial(d, so_far, own_seed, strength=strength) for d in self.degradations]
            return number + 1, tf.switch_case(order[number], changes)

        # A loop, so that each degradation is traced once, not once for each place in the order.
        _, changed = tf.while_loop(
            lambda number, _: number < tf.size(order), body, (tf.constant(0), images), parallel_iterations=1
        )
        return changed


def _takes_strength(degradation: object) -> bool:
    call = getattr(type(degradation), "__call__", None)  # noqa: B004, whose parameters are wanted
    return callable(degradation) and call is not None and "strength" in inspect.signature(call).parameters
