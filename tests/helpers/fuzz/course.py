"""Runs every program on one random configuration, in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import re
import shlex
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

import numpy as np
from absl.flags import FlagValues

import data.prepare
import engine.evaluate
import engine.train
import engine.translate
from data.preparation import prepare_flags
from engine.cli import program
from engine.cli.early_signals import INTERRUPTED
from engine.storage.run_directory import RunDirectory, read_rows
from tests.helpers.fuzz.configurations import Configuration, draw

WORKED, REFUSED, FAILED = "worked", "refused", "FAILED"
_NOT_CHECKED = ("noise_scale/",)  # infinite without noise or without a gradient
_POSITION = re.compile(r"^ *(\d+)/\d+ ex ")
_DEFINE_FLAGS = {
    data.prepare: prepare_flags.define,
    **{module: module.define_flags for module in (engine.train, engine.evaluate, engine.translate)},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a configuration.

    Attributes:
      seed: of the configuration.
      result: WORKED, REFUSED or FAILED.
      stage: the last program that was started.
      detail: why it was refused or failed; empty if it worked.
      stopped: whether the training was interrupted and continued.
    """

    seed: int
    result: str
    stage: str
    detail: str = ""
    stopped: bool = False


class FuzzError(Exception):
    """A configuration neither works nor is refused."""


class RefusedError(Exception):
    """A configuration is refused with exit code 2 and one line."""


class _Printed(io.StringIO):
    """Standard output of a program, which is asked to stop by a signal when it has printed a position."""

    def __init__(self, stop_examples: int | None = None) -> None:
        super().__init__()
        self._stop_examples = stop_examples

    def write(self, text: str) -> int:
        """Keeps the text."""
        position = _POSITION.match(text)
        if position and self._stop_examples is not None and int(position[1]) >= self._stop_examples:
            self._stop_examples = None
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


class Course:
    """The programs of one configuration, run in this process.

    Args:
      configuration: what to run.
      folder: of everything; must exist.
      log: where commands and their output are written.
    """

    def __init__(self, configuration: Configuration, folder: pathlib.Path, log: io.TextIOBase) -> None:
        self.stage = "pictures"
        self.stopped = False
        self._configuration = configuration
        self._log = log
        self._root = folder / configuration.name
        self._run = RunDirectory(str(self._root / "run"))

    def run(self) -> Outcome:
        """Runs all programs."""
        configuration = self._configuration
        try:
            self._root.mkdir()
            configuration.pictures.write(self._root, seed=configuration.seed)
            self._prepare()
            self._train()
            self._evaluate()
            self._translate()
        except RefusedError as error:
            return self._outcome(REFUSED, str(error))
        except FuzzError as error:
            return self._outcome(FAILED, str(error))
        except (Exception, SystemExit) as error:
            self._log.write(traceback.format_exc())
            return self._outcome(FAILED, f"{type(error).__name__}: {error}")
        return self._outcome(WORKED, "")

    def _outcome(self, result: str, detail: str) -> Outcome:
        return Outcome(
            seed=self._configuration.seed,
            result=result,
            stage=self.stage,
            detail=detail,
            stopped=self.stopped,
        )

    def _prepare(self) -> None:
        pictures = self._configuration.pictures
        flags = {
            "layout": pictures.layout, "source": self._root / "source", "name": "fuzz",
            "data_dir": self._root / "data", **dict(self._configuration.prepare),
        }  # fmt: skip
        if pictures.side == "map":
            flags["side_map"] = self._root / "side"
        elif pictures.side != "none":
            flags[f"side_{pictures.side}"] = self._root / "side.csv"
        self._start(data.prepare, flags, may_refuse=True)

    def _train(self) -> None:
        """Trains until it is stopped, then to the end."""
        first, second = self._configuration.replicas
        code = self._train_once(first, stop_examples=self._configuration.stop_examples)
        self.stopped = code == INTERRUPTED
        if self.stopped:
            self._train_once(second)
        rows = read_rows(self._run.train_log)
        if not rows or not os.path.exists(self._run.done):
            raise FuzzError("there are no rows in train.jsonl, or no DONE")
        _check_finite(rows, "train.jsonl")

    def _train_once(self, replicas: int, *, stop_examples: int | None = None) -> int:
        params = (
            'DATASET = "fuzz"',
            f"DATA_DIR = {str(self._root / 'data')!r}",
            f"CPU_REPLICAS = {replicas}",
            *self._configuration.gin_params,
        )
        flags = {"gin_file": self._configuration.gin_files, "gin_param": params, "workdir": self._run.path}
        codes = [0] if stop_examples is None else [0, INTERRUPTED]
        return self._start(
            engine.train,
            flags,
            codes=codes,
            may_refuse=stop_examples is not None,
            stop_examples=stop_examples,
        )

    def _evaluate(self) -> None:
        self._start(engine.evaluate, {"workdir": self._run.path, "split": "train"})
        _check_finite(read_rows(self._run.eval_log), "eval.jsonl")

    def _translate(self) -> None:
        configuration = self._configuration
        folder = self._root / ("B" if configuration.direction == "BtoA" else "A")
        output = self._root / "translated"
        flags = {
            "workdir": self._run.path,
            "input": folder,
            "output": output,
            **dict(configuration.translate),
        }
        if any("SideInformation.map" in param for param in configuration.gin_params):
            flags["side_map"] = self._root / "maps"
        self._start(engine.translate, flags)
        if len(list(output.iterdir())) < len(list(folder.iterdir())):
            raise FuzzError(f"only {sorted(path.name for path in output.iterdir())} were translated")
        for path in output.glob("*.npy"):
            if not np.isfinite(np.load(path)).all():
                raise FuzzError(f"{path.name} is not finite")

    def _start(
        self,
        module: ModuleType,
        flags: dict,
        *,
        codes: Sequence[int] = (0,),
        may_refuse: bool = False,
        stop_examples: int | None = None,
    ) -> int:
        """Runs a program; returns its exit code.

        Raises:
          RefusedError: exit code 2 with one line, where that is allowed and nothing was trained.
          FuzzError: another exit code, or a refusal of more than one line.
        """
        self.stage = module.__name__
        argv = ["program"]
        for name, value in flags.items():
            argv += [f"--{name}={each}" for each in (value if isinstance(value, tuple) else (value,))]
        self._log.write(f"$ python -m {shlex.join([module.__name__, *argv[1:]])}\n")
        out, err = _Printed(stop_examples), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _signals_raise():
                values = FlagValues()
                _DEFINE_FLAGS[module](values)
                code = program.exit_code(module.main, program.parse_flags(argv, values), values)
        except SystemExit as stop:
            code = stop.code
        finally:
            self._log.write(out.getvalue() + err.getvalue())
        lines = err.getvalue().strip().splitlines()
        if code == program.BAD_INPUT and len(lines) != 1:
            raise FuzzError(f"exit code 2 with {len(lines)} lines: {' | '.join(lines)}")
        if code in codes:
            return code
        if code == program.BAD_INPUT and may_refuse:
            if read_rows(self._run.train_log):
                raise FuzzError(f"refused after training began: {lines[0]}")
            raise RefusedError(lines[0])
        raise FuzzError(f"exit code {code}: {' | '.join(lines)}")


def _check_finite(rows: Iterable[dict], name: str) -> None:
    overflows: dict[str, int] = {}
    for row in rows:
        # In float16, a gradient may be too large in a step that the loss scale skips and counts.
        counts = {key: value for key, value in row.items() if key.startswith("overflows/")}
        skipped = [key.partition("/")[2] for key, count in counts.items() if count > overflows.get(key, 0)]
        not_checked = (*_NOT_CHECKED, *(f"grad_norm/{phase}" for phase in skipped))
        overflows = counts
        for key, value in row.items():
            finite = value is not None and (isinstance(value, str) or math.isfinite(value))
            if not finite and not key.startswith(not_checked):  # None is written for what is not
                raise FuzzError(f"{name}: {key} = {value} at {row['examples']} examples")


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Signals raise KeyboardInterrupt, as in every program."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def run(seed: int, folder: pathlib.Path) -> Outcome:
    """Runs the configuration of a seed in this process; the log is `folder`/log.txt."""
    with open(folder / "log.txt", "w", buffering=1) as log:
        return Course(draw(seed), folder, log).run()
