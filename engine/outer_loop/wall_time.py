"""A limit on the time of a process, as batch systems set one: stop and save before it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Hashable, Iterable, Iterator

import psutil

from engine.durations import seconds_of
from engine.errors import ConfigurationError

_NAME = "Experiment.max_wall_time"
_LARGEST_MARGIN_SEC = 30.0


class WallTime:
    """Tells when a process has to stop to end within its limit, by how long things took before.

    Args:
      limit: such as "8h30m", counted from the start of the process; None: no limit.
      age_sec: how old this process is; None asks the operating system.

    Raises:
      ConfigurationError: the limit is no time.
    """

    def __init__(self, limit: str | None, *, age_sec: float | None = None):
        self.limit = limit
        if age_sec is None:
            age_sec = time.time() - psutil.Process().create_time()
        self._started = time.monotonic() - age_sec
        self._limit_sec = None if limit is None else seconds_of(limit, name=_NAME)
        self._took_sec: dict[Hashable, float] = {}

    @contextlib.contextmanager
    def timed(self, what: Hashable) -> Iterator[None]:
        """Notes how long something takes, in place of the time before."""
        began = time.monotonic()
        yield
        self._took_sec[what] = time.monotonic() - began

    def is_nearly_over(self, coming: Iterable[Hashable], *, loop_sec: float, save_sec: float) -> bool:
        """Whether what comes next, and a save after it, might not end within the limit.

        Args:
          coming: of what was `timed`; what never was counts as nothing.
          loop_sec: how long the next call of the compiled loop may take.
          save_sec: how long a save may take. It is counted twice: another may have to end first.
        """
        if self._limit_sec is None:
            return False
        margin = min(_LARGEST_MARGIN_SEC, 0.05 * self._limit_sec)  # to start the save, to leave the process
        needed = loop_sec + sum(self._took_sec.get(what, 0.0) for what in coming) + 2 * save_sec + margin
        return time.monotonic() - self._started + needed > self._limit_sec

    def check_beginning(self) -> None:
        """Refuses a limit that is over before anything is trained: such a run would never end.

        Raises:
          ConfigurationError: so it is.
        """
        age_sec = time.monotonic() - self._started
        if self._limit_sec is not None and age_sec > self._limit_sec:
            raise ConfigurationError(
                f"{_NAME} = {self.limit!r}: over before the first step; raise it above {age_sec:.0f}s"
            )
