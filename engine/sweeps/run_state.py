"""Whether a run of a sweep can be trained, goes on, or is complete."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence

from data import gfile
from data.errors import DataError
from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.gin_config.diff import differences
from engine.gin_config.free_settings import free_to_change
from engine.storage.file_errors import reraise_read_errors
from engine.storage.run_directory import RunDirectory, read_rows
from engine.sweeps.points import Point


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run of a sweep.

    Attributes:
      point: its name and its values.
      workdir: its run directory.
      gin_files, gin_params: its whole configuration.
      total: its length in examples.
      refusal: why it cannot be trained; empty if it can, as far as its configuration tells.
    """

    point: Point
    workdir: str
    gin_files: Sequence[str]
    gin_params: Sequence[str]
    total: int = 0
    refusal: str = ""

    def is_trained(self) -> bool:
        """Whether the run is as long as it shall be."""
        path = RunDirectory(self.workdir).done
        with reraise_read_errors(path):
            if not gfile.exists(path):
                return False
            with gfile.open_text(path) as file:
                text = file.read()
        try:
            return json.loads(text)["examples"] >= self.total
        except (ValueError, TypeError, KeyError):  # damaged; training writes it again
            return False

    def is_evaluated(self, split: str) -> bool:
        """Whether the end of the run was evaluated on a split."""
        rows = read_rows(RunDirectory(self.workdir).eval_log)
        return any(row.get("split") == split and row.get("examples", 0) >= self.total for row in rows)


def plan_run(
    point: Point, *, workdir: str, gin_files: Sequence[str], gin_params: Sequence[str], split: str = ""
) -> PlannedRun:
    """Reads the configuration of a run, and compares it with its data set and what its run directory holds.

    Args:
      point: the run.
      workdir: directory of the sweep.
      gin_files: those of all runs; what the point adds comes after them.
      gin_params: likewise.
      split: on which the run will be evaluated; empty: on none.
    """
    planned = PlannedRun(
        point=point,
        workdir=os.path.join(workdir, point.name),
        gin_files=[*gin_files, *point.gin_files],
        gin_params=[*gin_params, *point.gin_params],
    )
    try:
        experiment, text = loader.load_experiment(gin_files=planned.gin_files, gin_params=planned.gin_params)
        total = experiment.examples("total_examples")
        experiment.batch_schedule_on(replicas=1)  # raises if it cannot be resolved
        if split:
            experiment.data.evaluation(split, batch=1)  # raises if there is no such split; reads nothing
        earlier = RunDirectory(planned.workdir).read_config()
        changed = earlier is not None and differences(
            earlier,
            text,
            free_to_change=free_to_change(experiment),
            examples_per_epoch=experiment.data.train_examples,
        )
        if changed:
            raise ConfigurationError(
                f"{planned.workdir}: was trained with other settings ({'; '.join(changed)}); use those, or "
                "choose another --workdir"
            )
    except (ConfigurationError, DataError) as error:
        return dataclasses.replace(planned, refusal=" ".join(str(error).split()))
    return dataclasses.replace(planned, total=total)
