"""Starts several workers of one training on this machine, each with its own TF_CONFIG.

python -m engine.launch --workers=2 -- python -m engine.train --gin_file=gin/pix2pix.gin --workdir=runs/mine
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from engine.cli.child_processes import ChildProcess, ProcessGuard
from engine.cli.program import BAD_INPUT, DONE, INTERRUPTED, print_error

_DETAILS = """
The command is started once for each worker. TF_CONFIG names free ports of the loopback interface. Each line
of a worker's output is printed with its name, "[worker 0] ...", on stdout or stderr as the worker wrote it.

When a worker fails, the others get SIGTERM, and SIGKILL after --grace_sec seconds. Each SIGINT and SIGTERM is
passed on to the workers: the first makes a training save and end, the second ends it at once. SIGINT goes to
all processes of a worker, as from a terminal; SIGTERM goes to the command only. When a worker ends, its child
processes are killed. When this program ends, even by SIGKILL, all workers are killed.

Exit codes: 0 if all workers exit with 0; 42 if they were interrupted; 2 if they could not be started;
otherwise that of the first worker that failed (128 + n if signal n killed it).
"""

_POLL_SEC = 0.05


class Launcher:
    """Runs the workers of one training to their end.

    Args:
      grace_sec: seconds that the other workers have to end after one has failed.
    """

    def __init__(self, *, grace_sec: float):
        self._grace_sec = grace_sec
        self._workers: list[ChildProcess] = []
        self._running: list[ChildProcess] = []
        self._code = DONE
        self._kill_at = math.inf
        self._received: list[int] = []
        self._passed_on = 0  # how many of the received signals
        self._guard = ProcessGuard()

    def run(self, command: Sequence[str], *, workers: int) -> int:
        """Starts the command once for each worker and waits for all workers.

        Args:
          command: program and arguments.
          workers: how many to start.

        Returns:
          The exit code of the program.

        Raises:
          OSError: the command cannot be started; no worker is left running.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._received.append(number))
        try:
            for index, config in enumerate(tf_configs(workers)):
                environment = {"PYTHONUNBUFFERED": "1"} | os.environ | {"TF_CONFIG": config}
                prefix = f"[worker {index}] ".encode()
                self._workers.append(ChildProcess(command, environment, prefix=prefix))
                self._guard.watch(self._workers[-1])
            self._wait()
            return self._code
        finally:
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
            self._guard.close()

    def _wait(self) -> None:
        self._running = list(self._workers)
        while self._running:
            self._pass_signals_on()
            for worker in [worker for worker in self._running if worker.has_ended()]:
                self._running.remove(worker)
                self._guard.forget(worker)
                if worker.process.returncode and not self._code:
                    self._after_first_failure(worker.process.returncode)
            if time.monotonic() > self._kill_at:
                self._signal_running(signal.SIGKILL)
            time.sleep(_POLL_SEC)
        for worker in self._workers:
            worker.join()

    def _pass_signals_on(self) -> None:
        for number in self._received[self._passed_on :]:
            self._passed_on += 1
            self._signal_running(number)

    def _after_first_failure(self, returncode: int) -> None:
        """Decides the exit code and makes the other workers end."""
        self._kill_at = time.monotonic() + self._grace_sec
        if self._passed_on:  # the others are ending; after a second signal they could not save
            self._code = INTERRUPTED
            return
        self._code = returncode if returncode > 0 else 128 - returncode
        self._signal_running(signal.SIGTERM)

    def _signal_running(self, number: int) -> None:
        for worker in self._running:
            worker.signal(number)


def tf_configs(workers: int) -> list[str]:
    """The TF_CONFIG of each worker on this machine, with ports that are free now.

    Args:
      workers: how many.
    """
    sockets = [socket.socket() for _ in range(workers)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:  # only now, so that no port was given twice
            each.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(workers)
    ]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(print_error(f"{message}; --help lists the flags", BAD_INPUT))


def main(arguments: Sequence[str]) -> int:
    """Runs the program with these arguments and returns the exit code."""
    parser = _Parser(
        prog="engine.launch",
        usage="python -m engine.launch --workers=N [--grace_sec=S] -- COMMAND ...",
        description=__doc__ + _DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, default=2, help="Number of workers. Default: 2.")
    parser.add_argument(
        "--grace_sec",
        type=float,
        default=30.0,
        help="Seconds between SIGTERM and SIGKILL after a worker has failed. Default: 30.",
    )
    own = list(arguments)
    command = []
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    flags = parser.parse_args(own)
    if flags.workers < 1:
        parser.error(f"--workers={flags.workers}: must be at least 1")
    if not flags.grace_sec >= 0:
        parser.error(f"--grace_sec={flags.grace_sec}: must be at least 0")
    if not command:
        parser.error("no command given; write it after --, as in --workers=2 -- python -m engine.train ...")
    if not hasattr(os, "killpg"):
        parser.error("this system has no process groups, which engine.launch needs; use Linux, macOS or WSL")
    try:
        return Launcher(grace_sec=flags.grace_sec).run(command, workers=flags.workers)
    except OSError as error:
        parser.error(f"{command[0]}: cannot be started ({error.strerror})")


def run() -> None:
    """Runs the program from the command line."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
