"""The error for everything that is wrong with a user's settings; apart, so that it needs no TensorFlow."""

import math


class ConfigurationError(ValueError):
    """Something the user set cannot work. The message is one line: what, where, how to mend."""


def check_at_least(least: float, *, of: str, **settings: float) -> None:
    """Raises ConfigurationError for a setting `of` a class that is too small or not finite."""
    for name, value in settings.items():
        if not least <= value < math.inf:  # NaN fits nowhere
            raise ConfigurationError(
                f"{of}.{name} = {value}: must be at least {least}, and finite; change it"
            )
