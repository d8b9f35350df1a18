"""A terminal that is closed while the program runs, as by a lost SSH connection."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator


def leave_closed_terminal() -> None:
    """Discards what is printed from now on, if it goes to a terminal that was closed."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextlib.contextmanager
def allow_closed_terminal() -> Iterator[None]:
    """Prints inside this context do not fail if the terminal was closed."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        leave_closed_terminal()
