"""What the files of a run directory say about the run, whatever state the run is in."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from data import gfile
from engine.errors import ConfigurationError
from engine.gin_config.diff import read_settings, total_examples
from engine.storage import run_lock
from engine.storage.file_errors import reraise_read_errors
from engine.storage.run_directory import RunDirectory, read_rows

_SAMPLES = re.compile(r"samples_(\d+)\.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
      name: of the run among those that are reported together.
      path: its run directory.
      rows: of train.jsonl, one for each position, in order.
      evaluations: rows of eval.jsonl, the last one of each position and split, in order of position.
      config_text: its config.gin; empty if it has not been written yet.
      total: planned length in examples; None if it is not known.
      samples: (position in examples, path) of each sample grid, in order.
      state: "complete", "training" or "not complete".
    """

    name: str
    path: str
    rows: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    config_text: str
    total: int | None
    samples: Sequence[tuple[int, str]]
    state: str

    @property
    def settings(self) -> dict[str, str]:
        """The value of each parameter, as gin text."""
        return read_settings(self.config_text)

    @property
    def examples(self) -> int:
        """How far the run has come, as its rows say."""
        return self.rows[-1]["examples"] if self.rows else 0

    def last_evaluations(self) -> dict[str, Mapping[str, Any]]:
        """The evaluation of each split at the latest position, by the name of the split."""
        return {str(row["split"]): row for row in self.evaluations}


def read_runs(paths: Sequence[str]) -> list[RunRecord]:
    """Reads runs, and gives each a short name of its own.

    Raises:
      ConfigurationError: a path holds no run, or cannot be read.
    """
    paths = list(dict.fromkeys(os.path.expanduser(path).rstrip("/") or "/" for path in paths))
    return [read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as it takes to tell all paths apart."""
    parts = [(path if gfile.is_url(path) else os.path.abspath(path)).split("/") for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def read_run(path: str, name: str) -> RunRecord:
    """Reads one run.

    Args:
      path: its run directory.
      name: the name to give it.

    Raises:
      ConfigurationError: there is no run, or it cannot be read.
    """
    run = RunDirectory(path)
    text = run.read_config()
    rows = _unique_rows(read_rows(run.train_log))
    if text is None and not rows:
        raise ConfigurationError(
            f"{path}: holds no run (no config.gin, no train.jsonl); name a run directory such as runs/mine"
        )
    with reraise_read_errors(path):
        samples = _samples(run.samples)
        state = _state(run)
    return RunRecord(
        name=name,
        path=path,
        rows=rows,
        evaluations=_unique_evaluations(read_rows(run.eval_log)),
        config_text=text or "",
        total=_total(text or "", rows),
        samples=samples,
        state=state,
    )


def _state(run: RunDirectory) -> str:
    if gfile.exists(run.done):
        return "complete"
    return "training" if run_lock.living_owner(run.lock) else "not complete"


def _unique_rows(rows: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The rows in the order of their positions; one that goes back replaces what lies after it."""
    kept: list[Mapping[str, Any]] = []
    for row in rows:
        if not (isinstance(row, dict) and is_number(row.get("examples"))):
            continue  # damaged, but still JSON
        while kept and kept[-1]["examples"] >= row["examples"]:
            kept.pop()
        kept.append(row)
    return kept


def _unique_evaluations(rows: Sequence[Any]) -> list[Mapping[str, Any]]:
    last = {
        (row["examples"], str(row["split"])): row
        for row in rows
        if isinstance(row, dict) and is_number(row.get("examples")) and row.get("split")
    }
    return sorted(last.values(), key=lambda row: row["examples"])


def _total(text: str, rows: Sequence[Mapping[str, Any]]) -> int | None:
    epoch = rows[-1].get("epoch") if rows else None
    if not text or not is_number(epoch) or not epoch:
        return None
    return total_examples(text, examples_per_epoch=round(rows[-1]["examples"] / epoch))


def _samples(directory: str) -> list[tuple[int, str]]:
    if not gfile.is_dir(directory):
        return []
    found = [(_SAMPLES.fullmatch(name), name) for name in gfile.list_dir(directory)]
    return sorted((int(match[1]), os.path.join(directory, name)) for match, name in found if match)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a row is a number; values that are not finite are written as null."""
    return isinstance(value, int | float) and not isinstance(value, bool)
