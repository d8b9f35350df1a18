"""Child processes that are stopped as a whole and never outlive this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

# A process that kills the process groups it watches when its stdin closes, which happens however the launcher
# ends. Unlike Linux's PR_SET_PDEATHSIG, this reaches grandchildren and works on every POSIX system.
_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    word, group = line.split()
    (groups.add if word == "watch" else groups.discard)(int(group))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class ChildProcess:
    """A process that leads a process group, and two threads that print its output.

    Args:
      command: program and arguments.
      environment: all environment variables of the process.
      prefix: what each line of its output starts with.

    Attributes:
      process: the process.
      last_error_line: the last line that it has written to stderr; empty if there is none.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, prefix: bytes = b""):
        self.last_error_line = ""
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=_forward, args=(prefix, source, sink, keep), daemon=True)
            for source, sink, keep in (
                (self.process.stdout, sys.stdout.buffer, None),
                (self.process.stderr, sys.stderr.buffer, self._keep),
            )
        ]
        for thread in self._threads:
            thread.start()

    def signal(self, number: int) -> None:
        """Sends a signal: SIGINT and SIGKILL to the whole process group, others to the process only."""
        if self.process.returncode is not None:  # another process may have its number by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
            if number in (signal.SIGINT, signal.SIGKILL):
                os.killpg(self.process.pid, number)
            else:
                # A command such as make passes the signal on; the group would get it twice.
                self.process.send_signal(number)

    def has_ended(self) -> bool:
        """Whether the process has ended. If so, kills the processes that it left behind."""
        if self.process.poll() is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it left none
            os.killpg(self.process.pid, signal.SIGKILL)
        return True

    def join(self) -> None:
        """Waits until all output is printed."""
        for thread in self._threads:
            thread.join(timeout=5)  # a process that left the group may keep the pipe open

    def _keep(self, line: bytes) -> None:
        self.last_error_line = line.decode(errors="replace").strip() or self.last_error_line


class ProcessGuard:
    """Kills the child processes that it watches if this process ends without closing it, even by SIGKILL."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdin
        self._input = self._process.stdin

    def watch(self, child: ChildProcess) -> None:
        """Kills the process group of a child if this process ends."""
        self._tell("watch", child)

    def forget(self, child: ChildProcess) -> None:
        """Leaves a child alone, which has ended."""
        self._tell("forget", child)

    def close(self) -> None:
        """Ends the watch; children that are still watched are killed."""
        self._input.close()
        self._process.wait()

    def _tell(self, word: str, child: ChildProcess) -> None:
        self._input.write(f"{word} {child.process.pid}\n")
        self._input.flush()


_writing = threading.Lock()


def _forward(prefix: bytes, source: BinaryIO, sink: BinaryIO, keep: Callable[[bytes], None] | None) -> None:
    for line in source:
        if keep is not None:
            keep(line)
        with _writing:
            try:
                sink.write(prefix + line if line.endswith(b"\n") else prefix + line + b"\n")
                sink.flush()
            except OSError:  # nobody reads the output any more; the processes continue
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), sink.fileno())
