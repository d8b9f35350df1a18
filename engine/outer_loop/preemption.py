"""Signals that stop a run early: the run saves after the current step and ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from engine.reporting.closed_terminal import leave_closed_terminal

_NOTICE = "Saving after this step. Press Ctrl-C again to stop without saving.\n"


class PreemptionHandler:
    """A context in which SIGINT (Ctrl-C) and SIGTERM ask the run to stop; a second signal stops it at once.

    So does SIGHUP, from a terminal that closes, unless it is ignored, as under `nohup`. Does nothing outside
    the main thread, where Python allows no signal handlers.

    Attributes:
      stop_reason: why the run was asked to stop; None if it was not.
    """

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self._has_signal = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> PreemptionHandler:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
            if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
                self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request_stop(self, reason: str) -> None:
        """Asks the run to stop for a reason other than a signal. The first reason is kept."""
        self.stop_reason = self.stop_reason or reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._has_signal:
            raise KeyboardInterrupt
        self._has_signal = True
        self.request_stop(signal.Signals(number).name)
        os.write(1, _NOTICE.encode())  # the signal may have interrupted a print

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        # The kernel and the shell may both send it, so a second one means nothing.
        del number, frame
        leave_closed_terminal()
        self.request_stop("SIGHUP (the terminal was closed)")
