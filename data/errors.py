"""The error for everything that is wrong with a user's data."""


class DataError(ValueError):
    """Raised when a source of images, a data set, or a setting of one cannot be used.

    The message is one line: `what: what is wrong; how to mend it`. Programs print it and exit with code 2.
    """
