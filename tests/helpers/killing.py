"""Kills a training at moments that are recognised from outside, and compares what came of it.

Nothing in the trained program knows of this: a moment is found in what the program prints and in the files
of its run directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory, read_rows
from tests.helpers.small_cyclegan.made_up_images import EPOCH_EXAMPLES

GIN_FILE = os.path.join(os.path.dirname(__file__), "small_cyclegan", "small_cyclegan.gin")
GROUPS_FILE = os.path.join(os.path.dirname(__file__), "small_cyclegan", "groups.gin")
VOLATILE = {"examples_per_sec", "sec_per_step", "data_wait_fraction", "host_memory_bytes", "time_unix"}
KINDS = ("start-up", "step", "boundary", "evaluation", "save")
_SAVE_SEC = 0.03  # about as long as a save of these networks takes
_POLL_SEC = 0.001
_UNFINISHED = re.compile(r"(writing|removing|replaced)-\d+")

# Imports everything once; then each line of its stdin is a training, in a process forked from it. No
# operation of TensorFlow has run by then.
_FORK = """
import json, os, sys
from engine import train
from data import unpaired
from models import cyclegan
for line in sys.stdin:
    output, environment, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        descriptors = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY)
        for number, descriptor in enumerate((*descriptors, descriptors[1])):
            os.dup2(descriptor, number)
        os.environ.update(environment)
        sys.argv = [train.__file__, *arguments]
        train.run()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Program:
    """`python -m engine.train`, started anew for each training, which takes its imports each time."""

    def start(self, arguments: Sequence[str], output: str) -> None:
        with open(output, "w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.train", *arguments], stdout=file, stderr=subprocess.STDOUT
            )

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """The exit code, -n if signal n ended it."""
        return self._process.wait()

    def close(self) -> None:
        self.kill()
        self.wait()


class ForkedProgram:
    """The same program in processes forked from one that has imported it, which halves the start."""

    def __init__(self):
        self._parent = subprocess.Popen(
            [sys.executable, "-c", _FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._child: int | None = None

    def start(
        self, arguments: Sequence[str], output: str, environment: Mapping[str, str] | None = None
    ) -> None:
        with open(output, "w"):
            pass  # it is there when the training is
        order = [output, dict(environment or {}), *arguments]
        self._parent.stdin.write(json.dumps(order).encode() + b"\n")
        self._child = int(self._parent.stdout.readline())

    def has_ended(self) -> bool:
        return bool(select.select([self._parent.stdout], [], [], 0)[0])  # its exit code is there

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self._child, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        code = int(self._parent.stdout.readline())
        self._child = None
        return code

    def close(self) -> None:
        if self._child is not None:
            self.kill()
        self._parent.kill()
        self._parent.wait()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """When a training is killed.

    Args:
      kind: one of KINDS; what the moment is meant to fall into.
      examples: nothing happens before the training has told of this position.
      delay_sec: from the start (kind "start-up"), else from the first row at which a step ends ("step"), the
        batch changes ("boundary"), an evaluation begins ("evaluation"), or from the first sight of a
        checkpoint being written ("save").
    """

    kind: str
    examples: int
    delay_sec: float


class Course:
    """What a training that nothing disturbed did, and when.

    Args:
      directory: its run directory.
      began: time at which it was started, as of `time.time`.
    """

    def __init__(self, directory: str, *, began: float):
        self.run = RunDirectory(directory)
        rows, evaluations = read_rows(self.run.train_log), read_rows(self.run.eval_log)
        self.positions = [row["examples"] for row in rows]
        self.total = self.positions[-1]
        told = {row["examples"]: row["time_unix"] for row in rows}
        self.start_sec = rows[0]["time_unix"] - began
        self.evaluation_sec = {
            row["examples"]: row["time_unix"] - told[row["examples"]] for row in evaluations
        }
        self.boundary_sec = {
            row["examples"]: following["time_unix"] - row["time_unix"]
            for row, following in itertools.pairwise(rows)
            if row["global_batch"] != following["global_batch"]
        }

    def draw_moment(self, draw: random.Random, kind: str, *, part: int, parts: int) -> Moment:
        """A moment of a kind in one of the parts into which the positions are cut."""
        first, last = (len(self.positions) * k // parts for k in (part, part + 1))
        examples = draw.choice(self.positions[first : last - 1])
        seconds = {"start-up": self.start_sec, "step": 0.1, "save": _SAVE_SEC}.get(kind)
        if seconds is None:
            of_kind = self.boundary_sec if kind == "boundary" else self.evaluation_sec
            within = self.positions[first:last]
            examples = draw.choice([position for position in of_kind if position in within])
            seconds = of_kind[examples]
        return Moment(kind=kind, examples=examples, delay_sec=draw.uniform(0, seconds))

    def place(self, directory: str, output: str) -> str:
        """Where a training was when it ended, from what it left behind."""
        printed = _content(output).decode()
        run, told = RunDirectory(directory), positions_told(printed, self.total)
        if not told:
            return "before the first step ended" if "parameters: " in printed else "before training began"
        examples = max(told[-1], *(row["examples"] for row in read_rows(run.train_log)))
        evaluated = [row["examples"] for row in read_rows(run.eval_log)]
        if examples in self.evaluation_sec and examples not in evaluated:
            place = "evaluation"
        else:
            place = "boundary" if examples in self.boundary_sec else "step"
        saving = any(_UNFINISHED.fullmatch(name) for name in _names(run.checkpoints))
        return f"{place}, in a save" if saving else place


def positions_told(output: str, total: int) -> list[int]:
    """Positions of the status lines in what a training printed."""
    return [int(number) for number in re.findall(rf"^ *(\d+)/{total} ex ", output, re.MULTILINE)]


def kill_at(process: Program | ForkedProgram, moment: Moment, course: Course, *, directory: str, output: str):
    """Kills a training that was just started; returns False if it ended before, its code being kept."""
    began = time.monotonic()
    triggers = {"boundary": course.boundary_sec, "evaluation": course.evaluation_sec}.get(moment.kind)
    saves = RunDirectory(directory).checkpoints
    text = ""
    with open(output) as printed:
        while not process.has_ended():
            text += printed.read()
            told = [at for at in positions_told(text, course.total) if at >= moment.examples]
            if moment.kind == "start-up":
                due = True
            elif moment.kind == "save":  # what an earlier kill left has gone when there are rows
                due = told and any(_UNFINISHED.fullmatch(name) for name in _names(saves))
            else:
                due = told and (triggers is None or any(at in triggers for at in told))
            if due:
                began = began if moment.kind == "start-up" else time.monotonic()
                time.sleep(max(0.0, began + moment.delay_sec - time.monotonic()))
                process.kill()
                return process.wait() == -signal.SIGKILL
            time.sleep(_POLL_SEC)
    return False


def differences(found: str, expected: str) -> list[str]:
    """What a finished run has that another has not, bit for bit; volatile keys and TensorBoard aside."""
    runs, wrong = [RunDirectory(path) for path in (found, expected)], []
    names = [sorted(os.listdir(run.path)) for run in runs]
    if names[0] != names[1]:
        wrong.append(f"files {sorted(set(names[0]) ^ set(names[1]))} are in one only")
    for log in ("train_log", "eval_log"):
        rows = [_steady(getattr(run, log)) for run in runs]
        if rows[0] != rows[1]:
            at = [row.get("examples") for row, other in zip(*rows, strict=False) if row != other]
            wrong.append(f"{log}: {len(rows[0])} rows for {len(rows[1])}, different at {at}")
    for name in ("config.gin", "DONE", *_names(runs[1].samples, "samples")):
        files = [os.path.join(run.path, name) for run in runs]
        if not os.path.exists(files[0]) or _content(files[0]) != _content(files[1]):
            wrong.append(f"{name} differs")
    saved = [sorted(_names(run.checkpoints)) for run in runs]
    if saved[0] != saved[1]:
        wrong.append(f"checkpoints {saved[0]} for {saved[1]}")
        return wrong
    for position in checkpoints.list_checkpoints(runs[1].checkpoints):
        values = [variables(run.path, position) for run in runs]
        unequal = [name for name, value in values[1].items() if values[0][name].tobytes() != value.tobytes()]
        if unequal or values[0].keys() != values[1].keys():
            wrong.append(f"checkpoint {position}: {len(unequal)} variables differ, such as {unequal[:3]}")
    return wrong


def variables(directory: str, position: int) -> dict[str, np.ndarray]:
    """All values of a checkpoint, by name."""
    path = os.path.join(RunDirectory(directory).checkpoints, f"{position:08d}", "state")
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_each_example_once(drawn: np.ndarray) -> None:
    """The ids of a run: each of an epoch once, the last epoch as far as it got, and not all alike."""
    whole = len(drawn) // EPOCH_EXAMPLES
    epochs = drawn[: whole * EPOCH_EXAMPLES].reshape(whole, EPOCH_EXAMPLES)
    assert (np.sort(epochs, axis=1) == np.arange(EPOCH_EXAMPLES)).all(), epochs
    rest = drawn[whole * EPOCH_EXAMPLES :]
    assert len(set(rest)) == len(rest) and set(rest) <= set(range(EPOCH_EXAMPLES)), rest
    assert len({tuple(epoch) for epoch in epochs}) > whole // 2  # shuffled anew


def _steady(path: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in read_rows(path)]


def _names(directory: str, before: str = "") -> list[str]:
    if not os.path.isdir(directory):
        return []
    return [os.path.join(before, name) for name in os.listdir(directory)]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
