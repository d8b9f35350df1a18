"""The error for everything that is wrong with a user's settings; apart, so that it needs no TensorFlow."""


class ConfigurationError(ValueError):
    """Something the user set cannot work. The message is one line: what, where, how to mend."""
