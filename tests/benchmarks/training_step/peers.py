"""Peers as processes: each makes steps when it is told to, as `peer_protocol` has it."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
LONGEST_END_SEC = 60.0


def command_of(module: str, *flags: str, python: str = sys.executable) -> list[str]:
    """The command that starts a peer of this package."""
    return [python, "-m", f"tests.benchmarks.training_step.{module}", *flags]


class PeerEndedError(RuntimeError):
    """A peer ended before it was told to; its own message is on stderr."""


class Peer:
    """A running peer.

    Args:
      command: starts it.
      environment: what its environment has beside that of this process.

    Attributes:
      flop: of one of its steps, once it can make them; 0 if it does not know.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None):
        self.flop = 0.0
        self._command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | dict(environment or {}),
        )

    def wait(self, within_sec: float = threading.TIMEOUT_MAX) -> None:
        """Waits until it has made its first steps.

        Args:
          within_sec: it is ended if it has not made them by then.

        Raises:
          PeerEndedError: it ended before.
        """
        timer = threading.Timer(within_sec, self._process.kill)
        timer.start()
        try:
            self.flop = float(self.read()["flop"])
        finally:
            timer.cancel()

    def run(self, steps: int) -> dict[str, float]:
        """Makes steps: their mean seconds and processor seconds, and the peak memory so far."""
        self.ask(steps)
        return self.read()

    def ask(self, steps: int) -> None:
        """Has it make steps; `read` returns when they are done."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `read` says so
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()

    def read(self) -> dict[str, float]:
        """The next row that it writes.

        Raises:
          PeerEndedError: there is none.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise PeerEndedError(f"{' '.join(self._command)}: ended")

    def end_input(self) -> None:
        """Tells it to end; workers end together."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """Ends it."""
        self.end_input()
        try:
            self._process.wait(LONGEST_END_SEC)
        except subprocess.TimeoutExpired:  # a worker may wait for one that has ended
            self._process.kill()
            self._process.wait()
