"""The error for everything that is wrong with a user's data."""

import os


class DataError(ValueError):
    """Raised when a source of images, a data set, or a setting of one cannot be used.

    The message is one line: `what: what is wrong; how to mend it`. Programs print it and exit with code 2.
    """


class MissingDatasetError(DataError):
    """There is no prepared data set of a name.

    Args:
      name: of the data set.
      data_dir: folder of the data sets in which it is not.

    Attributes:
      what: the first part of the message, without the remedy.
    """

    def __init__(self, name: str, data_dir: str | os.PathLike[str]) -> None:
        self.what = f"data set {name!r} is not in {os.fspath(data_dir)!r}"
        super().__init__(
            f"{self.what}: prepare it with `python -m data.prepare --layout=side_by_side "
            f"--source=YOUR_IMAGES --name={name} --data_dir={os.fspath(data_dir)}` (or --layout=paired, "
            "unpaired, single, labelled)"
        )
