"""Seconds from the command to the end of the first training step, cold and warm.

Beside `engine.train` on pix2pix at 256x256, the bare loop of TensorFlow's tutorial starts by turns. Before a
cold start the kernel is asked to forget all files of the environment, of this project and of the data set;
those that another running process has mapped stay in memory.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import time

import numpy as np

from tests.benchmarks.recorded_ratios import Row
from tests.benchmarks.training_step.compare import ENGINE, TUTORIAL
from tests.benchmarks.training_step.peers import ROOT, Peer, command_of

_POLL_SEC = 0.02


def measure(*, rounds: int) -> list[Row]:
    """Rows of cold and warm starts."""
    folders = [ROOT, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    starts = {ENGINE: _sec_of_train, TUTORIAL: _sec_of_tutorial}
    rows: list[Row] = []
    _sec_of_train()  # makes the built-in data set, and reads the files
    for case, is_cold in (("warm", False), ("cold", True)):
        found: dict[str, list[float]] = {name: [] for name in starts}
        for turn in range(1 if is_cold else rounds):
            for name in sorted(starts, reverse=turn % 2 == 1):
                if is_cold:
                    _forget(*folders)
                found[name].append(starts[name]())
        sec = {name: np.array(values) for name, values in found.items()}
        rows.append(
            {
                "table": "start",
                "case": f"pix2pix-256 {case}",
                "peer": f"{ENGINE}.train",
                "base": TUTORIAL,
                "speed": float(np.median(sec[TUTORIAL] / sec[ENGINE])),
                "sec": float(np.median(sec[ENGINE])),
                "base_sec": float(np.median(sec[TUTORIAL])),
            }
        )
    return rows


def _sec_of_train() -> float:
    with tempfile.TemporaryDirectory() as folder:
        rows = os.path.join(folder, "run", "train.jsonl")
        flags = ["--gin_file=gin/pix2pix.gin", "--gin_param=LOG_EVERY = 1"]
        command = [sys.executable, "-m", "engine.train", *flags, f"--workdir={os.path.join(folder, 'run')}"]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while not (os.path.exists(rows) and os.path.getsize(rows)):
            if process.poll() is not None:
                raise RuntimeError("engine.train ended before its first step")
            time.sleep(_POLL_SEC)
        sec = time.perf_counter() - began
        process.kill()
        process.wait()
    return sec


def _sec_of_tutorial() -> float:
    began = time.perf_counter()
    peer = Peer(command_of("tutorial_peer"))
    peer.wait()
    sec = time.perf_counter() - began  # with its second step
    sec -= peer.run(1)["sec"]
    peer.close()
    return sec


def _forget(*folders: object) -> None:
    """Asks the kernel to drop the pages of all files in folders from its cache."""
    os.sync()  # only clean pages can be dropped
    for folder in folders:
        for directory, _, names in os.walk(str(folder)):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    descriptor = os.open(path, os.O_RDONLY)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(descriptor)
