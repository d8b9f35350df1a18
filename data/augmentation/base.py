"""What all augmentations share: checks of their settings, stateless draws, and the images they change."""

import math
import numbers
from collections.abc import Callable

import tensorflow as tf

from data.errors import DataError
from data.roles import INPUT, SIDE_MAP, TARGET

_ROLES = {"both": (INPUT, TARGET, SIDE_MAP), INPUT: (INPUT,), TARGET: (TARGET,)}


def check_number(owner, name: str, *, minimum: float, maximum: float = math.inf):
    """Raises a DataError unless the setting is a finite number from `minimum` to `maximum`."""
    value = getattr(owner, name)
    if not _is_number(value) or not minimum <= value <= maximum:
        limits = f"at least {minimum:g}" if maximum == math.inf else f"from {minimum:g} to {maximum:g}"
        raise DataError(f"{_said(owner, name)}: must be a number, {limits}.")


def check_whole_number(owner, name: str, *, minimum: int):
    """Raises a DataError unless the setting is a whole number of at least `minimum`."""
    value = getattr(owner, name)
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise DataError(f"{_said(owner, name)}: must be a whole number, at least {minimum}.")


def check_range(
    owner, name: str, *, minimum: float, maximum: float = math.inf, above: bool = False, whole: bool = False
):
    """Raises a DataError unless the setting is a pair of numbers (low, high), low <= high.

    Args:
        owner: the settings, an object.
        name: the attribute that holds the pair.
        minimum, maximum: where low and high must lie, both limits included.
        above: `minimum` itself is too low.
        whole: both must be whole numbers.
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
            f"{_said(owner, name)}: must be two {numbers_} (low, high) with "
            f"{minimum:g} {'<' if above else '<='} low <= high{highest}."
        )


def check_choice(owner):
    """Raises a DataError unless `probability` is from 0 to 1 and `on`, if there is one, names roles."""
    check_number(owner, "probability", minimum=0, maximum=1)
    on = getattr(owner, "on", "both")
    if not isinstance(on, str) or on not in _ROLES:
        raise DataError(f"{_said(owner, 'on')}: must be 'both', 'input' or 'target'.")


def uniform(seed, limits, shape=()):
    """Evenly distributed numbers: float32 `shape` in [low, high) of the pair `limits`."""
    low, high = limits
    return tf.random.stateless_uniform(shape, seed, low, high)


def happens(seed, probability: float):
    """A bool scalar that is true with that probability; a constant where nothing is left to chance."""
    if probability in (0, 1):
        return tf.constant(bool(probability))
    return tf.random.stateless_uniform([], seed) < probability


def change_if(happened, images: dict, change: Callable, on: str = "both") -> dict:
    """Changes the images of the roles that `on` names, all of them or none.

    Args:
        happened: bool scalar.
        images: {role: float32 [H, W, C]}.
        change: function of one image that gives an image of the same shape.
        on: "both", "input" or "target"; a role that is not there is passed over.

    Returns:
        A dictionary of the same roles and shapes.
    """
    chosen = {role: image for role, image in images.items() if role in _ROLES[on]}

    def changed():
        return {role: tf.ensure_shape(change(image), image.shape) for role, image in chosen.items()}

    # Not even traced where it cannot happen, and no condition where it always does.
    known = tf.get_static_value(happened)
    if not chosen or (known is not None and not known):
        return dict(images)
    return images | (changed() if known is not None else tf.cond(happened, changed, lambda: chosen))


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _said(owner, name):
    return f"{type(owner).__name__}.{name} = {getattr(owner, name)!r}"
