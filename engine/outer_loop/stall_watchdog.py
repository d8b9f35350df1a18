"""Says what a run waits for when it waits for long: input that stalls, or a step or a collective that hangs.

A thread of its own watches, because the main thread is inside TensorFlow. It never stops the run: a file
system may come back. A stall is when nothing moves for `Experiment.report_stalls_after`, and for ten times as
long as the last step took.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator

from engine.durations import seconds_of
from engine.errors import ConfigurationError

_SLOW = 10.0
_LONGEST_POLL_SEC = 2.0


class StallWatchdog:
    """A context in which a thread watches the blocks of `watch`.

    Args:
      after: a wait is reported after so long, such as "5m", and again after twice, four times, ... as long;
        None reports nothing, and there is no thread.
      report: prints a line; it is called from the thread.
    """

    def __init__(self, after: str | None, *, report: Callable[[str], None]):
        self._after_sec = None if after is None else seconds_of(after, name="Experiment.report_stalls_after")
        self._report = report
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watched: _Watched | None = None
        self._thread: threading.Thread | None = None
        self._failure: ConfigurationError | None = None

    def __enter__(self) -> StallWatchdog:
        if self._after_sec is not None:
            self._thread = threading.Thread(target=self._run, args=(self._after_sec,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def watch(
        self,
        *,
        describe: Callable[[], str],
        position: Callable[[], Hashable] = lambda: None,
        usual_sec: float = 0.0,
    ) -> Iterator[None]:
        """Reports if the block takes long and `position` does not change.

        Args:
          describe: says what is being waited for; called from the thread.
          position: something that changes whenever the run moves; called from the thread.
          usual_sec: how long the block is known to take between two changes.

        Raises:
          ConfigurationError: a line could not be written to log.txt.
        """
        watched = _Watched(position, describe, usual_sec)
        with self._lock:
            self._watched = watched
        try:
            yield
        finally:
            with self._lock:  # a report in progress is completed first
                self._watched = None
        if watched.is_reported:
            self._report(watched.moving_again())
        if self._failure is not None:
            raise self._failure

    def _run(self, after_sec: float) -> None:
        while not self._ended.wait(min(_LONGEST_POLL_SEC, after_sec / 4)):
            with self._lock:
                line = self._watched.overdue(after_sec) if self._watched else None
                try:
                    if line is not None:
                        self._report(line)
                except ConfigurationError as error:  # such as a full disk; for the main thread
                    self._failure = error
                    return


class _Watched:
    """One block, and how long nothing has moved in it."""

    def __init__(self, position: Callable[[], Hashable], describe: Callable[[], str], usual_sec: float):
        self._position = position
        self._describe = describe
        self._usual_sec = usual_sec
        self._last = position()
        self._since = time.monotonic()
        self._reported_sec = 0.0

    @property
    def is_reported(self) -> bool:
        """Whether the current wait was reported."""
        return self._reported_sec > 0

    def moving_again(self) -> str:
        """A line about the end of the wait."""
        return f"moving again after {duration(time.monotonic() - self._since)}"

    def overdue(self, after_sec: float) -> str | None:
        """A line about the wait, if it is time for one; or about its end."""
        now, position = time.monotonic(), self._position()
        if position != self._last:
            line = self.moving_again() if self.is_reported else None
            self._last, self._since, self._reported_sec = position, now, 0.0
            return line
        waited_sec = now - self._since
        if waited_sec < max(after_sec, _SLOW * self._usual_sec, 2 * self._reported_sec):
            return None
        self._reported_sec = waited_sec
        return f"{self._describe()} (for {duration(waited_sec)} so far)"


def duration(sec: float) -> str:
    """A time for people, such as "45s" or "2m05s"."""
    minutes, seconds = divmod(round(sec), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
