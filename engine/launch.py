"""Starts local workers of one training, each with its TF_CONFIG.

python -m engine.launch --workers=2 -- python -m engine.train --gin_file=gin/pix2pix.gin --workdir=runs/mine
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

from engine.cli.program import BAD_INPUT, DONE, INTERRUPTED

_DETAILS = """
The command is started once for each worker, with free ports of the loopback interface in TF_CONFIG. What
a worker writes comes out line by line behind its name, "[worker 0] ...", stdout and stderr apart.

When a worker fails, the others get SIGTERM, and SIGKILL after --grace_sec seconds. SIGINT and SIGTERM are
handed to the workers as often as they come: the first makes a training save and end, the second ends it at
once. SIGINT goes to all processes of a worker, as from a terminal, SIGTERM to the command itself. Whatever a
worker started is killed when it ends; and everything is killed when this program is, by SIGKILL too.

Exit codes: 0 if all workers end with 0; 42 if they were interrupted; 2 if they could not be started; else
that of the first worker that failed (128 + n if signal n ended it).
"""

_POLL_SEC = 0.05

# Kills the process groups it was told of when its stdin ends, as it does however the launcher ends. Unlike
# Linux's PR_SET_PDEATHSIG, this reaches children's children and works on every POSIX system.
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


class Worker:
    """One worker: its process, which leads a process group, and the threads that pass its output on."""

    def __init__(self, index: int, command: Sequence[str], environment: dict[str, str]):
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=_forward, args=(f"[worker {index}] ".encode(), source, sink), daemon=True)
            for source, sink in (
                (self.process.stdout, sys.stdout.buffer),
                (self.process.stderr, sys.stderr.buffer),
            )
        ]
        for thread in self._threads:
            thread.start()

    def signal(self, number: int) -> None:
        """Sends SIGINT and SIGKILL to all processes of the worker, others to the command itself."""
        if self.process.returncode is not None:  # its number may be another's by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
            if number in (signal.SIGINT, signal.SIGKILL):
                os.killpg(self.process.pid, number)
            else:
                # A command that passes signals on, as make does, must not make two of one.
                self.process.send_signal(number)

    def ended(self) -> bool:
        """Whether the command has ended; what it started is killed then."""
        if self.process.poll() is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it started nothing
            os.killpg(self.process.pid, signal.SIGKILL)
        return True

    def join(self) -> None:
        """Waits for the last of its output; not for a process that left the group and holds on to it."""
        for thread in self._threads:
            thread.join(timeout=5)


class Launcher:
    """Runs the workers of one training to their end.

    Args:
      grace_sec: seconds that the others have for ending after one has failed.
    """

    def __init__(self, *, grace_sec: float):
        self._grace_sec = grace_sec
        self._workers: list[Worker] = []
        self._received: list[int] = []
        self._guard = subprocess.Popen(
            [sys.executable, "-ISc", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, command: Sequence[str], *, workers: int) -> int:
        """Starts the command once for each worker, waits for all, and gives the exit code.

        Raises:
          OSError: the command cannot be started; nothing is left running.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._received.append(number))
        try:
            for index, config in enumerate(tf_configs(workers)):
                environment = {"PYTHONUNBUFFERED": "1"} | os.environ | {"TF_CONFIG": config}
                self._workers.append(Worker(index, command, environment))
                self._tell_guard("watch", self._workers[-1])
            return self._wait()
        finally:
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
            self._guard.stdin.close()
            self._guard.wait()

    def _wait(self) -> int:
        running, code, kill_at, handed_on = list(self._workers), DONE, math.inf, 0
        while running:
            for number in self._received[handed_on:]:
                handed_on += 1
                for worker in running:
                    worker.signal(number)
            for worker in [worker for worker in running if worker.ended()]:
                running.remove(worker)
                self._tell_guard("forget", worker)
                ended_with = worker.process.returncode
                if not ended_with or code:
                    continue
                kill_at = time.monotonic() + self._grace_sec
                if handed_on:  # the others are ending; a second signal would not let them save
                    code = INTERRUPTED
                    continue
                code = ended_with if ended_with > 0 else 128 - ended_with
                for other in running:
                    other.signal(signal.SIGTERM)
            if time.monotonic() > kill_at:
                for worker in running:
                    worker.signal(signal.SIGKILL)
            time.sleep(_POLL_SEC)
        for worker in self._workers:
            worker.join()
        return code

    def _tell_guard(self, word: str, worker: Worker) -> None:
        self._guard.stdin.write(f"{word} {worker.process.pid}\n")
        self._guard.stdin.flush()


def tf_configs(workers: int) -> list[str]:
    """TF_CONFIG of each of so many workers on this machine, on ports that are free now."""
    sockets = [socket.socket() for _ in range(workers)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:  # all were held until now, so that none was given twice
            each.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(workers)
    ]


_writing = threading.Lock()


def _forward(prefix: bytes, source: BinaryIO, sink: BinaryIO) -> None:
    for line in source:
        with _writing:
            try:
                sink.write(prefix + line if line.endswith(b"\n") else prefix + line + b"\n")
                sink.flush()
            except OSError:  # no one reads any more; the workers go on all the same
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), sink.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(BAD_INPUT, f"{message}; --help lists the flags\n")


def main(arguments: Sequence[str]) -> int:
    """The program, given its arguments; returns the exit code."""
    parser = _Parser(
        prog="engine.launch",
        usage="python -m engine.launch --workers=N [--grace_sec=S] -- COMMAND ...",
        description=__doc__ + _DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, default=2, help="How many to start; default: 2.")
    parser.add_argument(
        "--grace_sec",
        type=float,
        default=30.0,
        help="Seconds between SIGTERM and SIGKILL after a worker has failed; default: 30.",
    )
    own = list(arguments)
    command = []
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    flags = parser.parse_args(own)
    if flags.workers < 1:
        parser.error(f"--workers={flags.workers}: at least 1")
    if not flags.grace_sec >= 0:
        parser.error(f"--grace_sec={flags.grace_sec}: at least 0")
    if not command:
        parser.error("no command given; write it after --, as in --workers=2 -- python -m engine.train ...")
    if not hasattr(os, "killpg"):
        parser.error("needs process groups, which this system does not have; use Linux, macOS or WSL")
    try:
        return Launcher(grace_sec=flags.grace_sec).run(command, workers=flags.workers)
    except OSError as error:
        parser.error(f"{command[0]!r} cannot be started ({error.strerror})")


def run() -> None:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
