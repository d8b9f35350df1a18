"""What all augmentations share: checks of settings, stateless random draws, choice of images."""

import math
import numbers
from collections.abc import Callable, Sequence

import tensorflow as tf

from data.errors import DataError
from data.roles import INPUT, SIDE_MAP, TARGET

_ROLES: dict[str, tuple[str, ...]] = {"both": (INPUT, TARGET, SIDE_MAP), INPUT: (INPUT,), TARGET: (TARGET,)}


def check_number(owner: object, name: str, *, minimum: float, maximum: float = math.inf) -> None:
    """Raises a DataError unless an attribute is a finite number from `minimum` to `maximum`."""
    value = getattr(owner, name)
    if not _is_number(value) or not minimum <= value <= maximum:
        limits = f"at least {minimum:g}" if maximum == math.inf else f"from {minimum:g} to {maximum:g}"
        raise DataError(f"{_setting(owner, name)}: must be a number, {limits}")


def check_whole_number(owner: object, name: str, *, minimum: int) -> None:
    """Raises a DataError unless an attribute is an integer of at least `minimum`."""
    value = getattr(owner, name)
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise DataError(f"{_setting(owner, name)}: must be a whole number, at least {minimum}")


def check_range(
    owner: object,
    name: str,
    *,
    minimum: float,
    maximum: float = math.inf,
    above: bool = False,
    whole: bool = False,
) -> None:
    """Raises a DataError unless an attribute is a pair of numbers (low, high), low <= high.

    Args:
      owner: the augmentation.
      name: of its attribute.
      minimum: of low; allowed itself, unless `above`.
      maximum: of high; allowed itself.
      above: low must be greater than `minimum`.
      whole: both must be integers.
    """
    value = getattr(owner, name)
    fits = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
    fits = fits and minimum <= value[0] <= value[1] <= maximum and not (above and value[0] == minimum)
    if whole:
        fits = fits and all(isinstance(number, numbers.Integral) for number in value)
    if not fits:
        numbers_ = "whole numbers" if whole else "numbers"
        highest = "" if maximum == math.inf else f" <= {maximum:g}"
        raise DataError(
            f"{_setting(owner, name)}: must be two {numbers_} (low, high) with "
            f"{minimum:g} {'<' if above else '<='} low <= high{highest}"
        )


def check_choice(owner: object) -> None:
    """Raises a DataError unless `probability` is from 0 to 1 and `on`, if there is one, is valid."""
    check_number(owner, "probability", minimum=0, maximum=1)
    on = getattr(owner, "on", "both")
    if not isinstance(on, str) or on not in _ROLES:
        raise DataError(f"{_setting(owner, 'on')}: must be 'both', 'input' or 'target'")


def uniform(seed: tf.Tensor, limits: tuple[float, float], shape: Sequence[int] = ()) -> tf.Tensor:
    """Draws uniform numbers in [low, high) of the pair `limits`: float32 `shape`."""
    low, high = limits
    return tf.random.stateless_uniform(shape, seed, low, high)


def happens(seed: tf.Tensor, probability: float, strength: tf.Tensor | None = None) -> tf.Tensor:
    """Draws a bool scalar that is true with that probability, and never at strength 0.

    It is a constant if the probability is 0 or 1 and the strength None.
    """
    drawn = (
        tf.constant(bool(probability))
        if probability in (0, 1)
        else tf.random.stateless_uniform([], seed) < probability
    )
    return drawn if strength is None else drawn & (strength > 0)


def weakened(value: tf.Tensor, strength: tf.Tensor | None, *, identity: float = 0.0) -> tf.Tensor:
    """The value of a parameter at a strength: linear from `identity`, which changes nothing, to `value`.

    Args:
      value: float32, as drawn from the settings.
      strength: float32 scalar in [0, 1]; None is 1.
      identity: the value at strength 0.
    """
    return value if strength is None else identity + strength * (value - identity)


def change_if(happened: tf.Tensor, images: dict, change: Callable, on: str = "both") -> dict:
    """Changes the images of the roles of `on`, or none of them.

    Args:
      happened: bool scalar.
      images: {role: float32 [H, W, C]}.
      change: function of one image that returns an image of the same shape.
      on: "both" (with the side map), "input" or "target"; roles without an image are ignored.

    Returns:
      A dictionary of the same roles and shapes.
    """
    chosen = {role: image for role, image in images.items() if role in _ROLES[on]}

    def changed() -> dict[str, tf.Tensor]:
        return {role: tf.ensure_shape(change(image), image.shape) for role, image in chosen.items()}

    # Not traced if it cannot happen, and without a condition if it always does.
    known = tf.get_static_value(happened)
    if not chosen or (known is not None and not known):
        return dict(images)
    return images | (changed() if known is not None else tf.cond(happened, changed, lambda: chosen))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _setting(owner: object, name: str) -> str:
    """An attribute as in the settings, for messages."""
    return f"{type(owner).__name__}.{name} = {getattr(owner, name)!r}"
