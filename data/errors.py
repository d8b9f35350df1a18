"""The error for everything that is wrong with a user's data."""


class DataError(ValueError):
    """A source, a data set or a setting of one cannot be used.

    The message is one line that says what is wrong, where, and how to mend it; binaries print it
    as it stands and exit with code 2.
    """
