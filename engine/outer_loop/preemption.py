"""Signals that end a run early: they are noted, and the run saves and stops at the next step."""

from __future__ import annotations

import os
import signal
import threading


class PreemptionHandler:
    """A context in which SIGINT (Ctrl-C) and SIGTERM only set `requested`; a second one is immediate.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self):
        self.requested: str | None = None
        self._signalled = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> PreemptionHandler:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Asks the run to save and stop, for another reason than a signal."""
        self.requested = self.requested or reason

    def _note(self, number, frame) -> None:
        del frame
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        self.request(signal.Signals(number).name)
        # Not print: it may have been interrupted itself.
        os.write(1, b"stopping: this goes on to a point where it can be saved; again to stop at once\n")
