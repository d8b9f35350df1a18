"""Runs random configurations, each in a process of its own that has a time limit."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Iterable, Iterator

import tensorflow as tf

from tests.helpers.fuzz.course import FAILED, Outcome, run


def run_forked(
    seeds: Iterable[int], directory: pathlib.Path, *, jobs: int, limit_sec: float
) -> Iterator[tuple[Outcome, float]]:
    """Runs configurations, each in a process forked from this one, which must not have used TensorFlow.

    Args:
      seeds: of the configurations.
      directory: gets a folder for each; that of one that did not fail is removed.
      jobs: processes at the same time.
      limit_sec: a process that takes longer is killed, and has failed.

    Yields:
      The outcomes as they come, with their seconds.
    """
    waiting, running = collections.deque(seeds), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.popleft()
                folder = directory / f"seed_{seed}"
                folder.mkdir()
                running[_fork(seed, folder)] = seed, folder, time.monotonic()
            time.sleep(0.05)
            for child, (seed, folder, began) in list(running.items()):
                sec = time.monotonic() - began
                outcome = _outcome_of(child, seed, folder, overdue=sec > limit_sec)
                if outcome is not None:
                    del running[child]
                    if outcome.result != FAILED:
                        shutil.rmtree(folder)
                    yield outcome, sec
    finally:
        for child in running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fork(seed: int, folder: pathlib.Path) -> int:
    """Starts a process that writes `folder`/outcome.json; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(folder / "native.txt", "w") as native:
            for descriptor in (1, 2):
                os.dup2(native.fileno(), descriptor)
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
        )
        outcome = run(seed, folder)
        (folder / "outcome.json").write_text(json.dumps(dataclasses.asdict(outcome)))
        code = 0
    finally:
        os._exit(code)


def _outcome_of(child: int, seed: int, folder: pathlib.Path, *, overdue: bool) -> Outcome | None:
    """The outcome of a process; None while it runs."""
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return Outcome(**json.loads((folder / "outcome.json").read_text()))
        return Outcome(seed=seed, result=FAILED, stage="process", detail=f"ended with {code}")
    if overdue:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return Outcome(seed=seed, result=FAILED, stage="process", detail="took too long")
    return None
