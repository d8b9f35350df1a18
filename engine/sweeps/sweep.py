"""Runs the runs of a sweep one after another, each in a process of its own."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence

from engine.cli.child_processes import ChildProcess, ProcessGuard
from engine.cli.program import INTERRUPTED
from engine.reporting.closed_terminal import allow_closed_terminal, leave_closed_terminal
from engine.storage.run_directory import RunDirectory
from engine.storage.run_lock import RunInUseError, living_owner
from engine.sweeps.bookkeeping import Bookkeeping
from engine.sweeps.run_state import PlannedRun

COMPLETE, FAILED, REFUSED, STOPPED, ELSEWHERE, WAITING = (
    "complete",
    "failed",
    "refused",
    "stopped",
    "running elsewhere",
    "waiting",
)
_TRAIN, _EVALUATE = "engine.train", "engine.evaluate"
_POLL_SEC = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run.

    Attributes:
      state: one of the states of this module.
      detail: why it failed, was refused or stopped, or which process runs it.
      code: exit code of its process if it failed.
    """

    state: str
    detail: str = ""
    code: int = 0


class Sweep:
    """The runs of a sweep, which this process shares with others that were started in the same way.

    Args:
      runs: in the order in which they are run.
      bookkeeping: of the sweep.
      split: evaluate each trained run on this split; empty: do not.

    Attributes:
      outcomes: of each run, by its name.
      is_interrupted: whether a signal has ended the sweep.
    """

    def __init__(self, runs: Sequence[PlannedRun], bookkeeping: Bookkeeping, *, split: str = ""):
        self._runs = runs
        self._bookkeeping = bookkeeping
        self._split = split
        self._guard = ProcessGuard()
        self._received: list[int] = []
        self.outcomes = {
            run.point.name: Outcome(state=REFUSED, detail=run.refusal, code=2)
            if run.refusal
            else Outcome(state=WAITING)
            for run in runs
        }

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal has come."""
        return bool(self._received)

    def run(self) -> None:
        """Runs every run that no other process runs, until none is left or a signal comes."""
        previous = {
            number: signal.signal(number, lambda number, _: self._received.append(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # under nohup it is ignored
            previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        try:
            # Another process may leave a run that it has begun, so the last pass is one that finds nothing.
            while self._pass():
                pass
        finally:
            self._guard.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _pass(self) -> bool:
        """Tries each run that is not ended; returns whether it has run one."""
        has_run = False
        for number, run in enumerate(self._runs, start=1):
            name = run.point.name
            if self.outcomes[name].state not in (WAITING, ELSEWHERE):
                continue
            if self.is_interrupted:
                return False
            try:
                with self._bookkeeping.claim(name):
                    self.outcomes[name] = self._run_claimed(run, number)
                    has_run = True
            except RunInUseError:
                owner = self._bookkeeping.owner(name) or living_owner(RunDirectory(run.workdir).lock)
                self.outcomes[name] = Outcome(state=ELSEWHERE, detail=owner or "another process")
        return has_run

    def _run_claimed(self, run: PlannedRun, number: int) -> Outcome:
        failure = self._bookkeeping.failure(run.point.name)
        if failure is not None:  # in a process beside this one
            return Outcome(state=FAILED, detail=failure.message, code=failure.code)
        commands = list(self._commands(run))
        if not commands:
            return Outcome(state=COMPLETE)
        directory = RunDirectory(run.workdir)
        directory.create()
        with directory.hold_lock():  # somebody may train it without the sweep
            pass
        _say(f"run {number} of {len(self._runs)}: {run.point.name}")
        for command in commands:
            outcome = self._wait_for(command)
            if outcome.state != COMPLETE:
                break
        if outcome.state == FAILED:
            self._bookkeeping.record_failure(run.point.name, code=outcome.code, message=outcome.detail)
        return outcome

    def _commands(self, run: PlannedRun) -> Iterator[list[str]]:
        """What is left to do for a run."""
        workdir = f"--workdir={run.workdir}"
        if not run.is_trained():
            yield [
                _TRAIN,
                workdir,
                *(f"--gin_file={file}" for file in run.gin_files),
                *(f"--gin_param={param}" for param in run.gin_params),
            ]
        if self._split and not run.is_evaluated(self._split):
            yield [_EVALUATE, workdir, f"--split={self._split}"]

    def _wait_for(self, command: Sequence[str]) -> Outcome:
        """Runs a program to its end, and passes signals on to it."""
        passed_on = len(self._received)
        if passed_on:
            return Outcome(state=STOPPED)
        child = ChildProcess([sys.executable, "-m", *command], {"PYTHONUNBUFFERED": "1"} | os.environ)
        self._guard.watch(child)
        while not child.has_ended():
            for number in self._received[passed_on:]:
                child.signal(number)
                passed_on += 1
            time.sleep(_POLL_SEC)
        self._guard.forget(child)
        child.join()
        code = child.process.returncode
        if code == 0:
            return Outcome(state=COMPLETE)
        if code == INTERRUPTED or passed_on:
            return Outcome(state=STOPPED, detail=child.last_error_line)
        if code < 0:
            killed = f"signal {-code} killed it, as the system does when memory runs out"
            return Outcome(state=FAILED, detail=killed, code=1)
        return Outcome(state=FAILED, detail=child.last_error_line or f"exit code {code}", code=code)

    def _hang_up(self, number: int, frame: object) -> None:
        # The kernel and the shell may both send it, so a second one means nothing.
        del number, frame
        leave_closed_terminal()
        if not self._received:
            self._received.append(signal.SIGTERM)


def _say(text: str) -> None:
    with allow_closed_terminal():
        print(text, flush=True)
