"""Records runs with MLflow, beside their own files; installed by the extra `mlflow`.

`gin/mlflow.gin`, after the gin file of a task, switches it on. MLflow's own page shows the runs:
`mlflow ui --backend-store-uri sqlite:///mlflow.db`.

A run that is resumed at an earlier position than MLflow has of it gets a new MLflow run, with the rows up to
there from train.jsonl and eval.jsonl, and the old one is deleted (`mlflow gc` removes it for good): MLflow
cannot drop single points. So there is one point at each position, as in TensorBoard.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data import gfile
from engine.errors import ConfigurationError
from engine.log_writer import LogWriter, ReportedRun
from engine.storage.atomic_files import write_text
from engine.storage.run_directory import RunDirectory, read_rows

_MOST_PARAMETERS = 100  # of one request of MLflow's
_MOST_METRICS = 1000
_LONGEST_VALUE = 6000  # characters of a parameter


class MlflowTracker(LogWriter):
    """Writes scalars, settings, the configuration and sample grids to MLflow.

    Args:
      uri: MLflow's tracking URI: a file (`sqlite:///mlflow.db`, which needs no server and no network), or a
        server (`http://...`).
      experiment: MLflow's name for a group of runs.
      run_name: of this run; None takes the name of the run directory.
    """

    def __init__(
        self, *, uri: str = "sqlite:///mlflow.db", experiment: str = "gantry", run_name: str | None = None
    ):
        self.uri = uri
        self.experiment = experiment
        self.run_name = run_name
        self._mlflow: Any = None
        self._client: Any = None
        self._run_id = ""

    def start(self, run: ReportedRun) -> None:
        """Continues the MLflow run that the run directory names, or makes one."""
        self._mlflow = _import_mlflow(in_a_file=self.uri.startswith("sqlite:"))
        id_file = os.path.join(run.path, "mlflow_run_id.txt")
        with self._reraise_errors():
            self._client = self._mlflow.MlflowClient(tracking_uri=self.uri)
            earlier = self._find_run(id_file)
            if earlier is not None and self._newest_position(earlier) <= run.done_examples:
                self._run_id = earlier
                self._client.update_run(self._run_id, status="RUNNING")
                return
            self._run_id = self._create_run(run)
            self._replay(run)
            if earlier is not None:
                self._client.delete_run(earlier)
        write_text(id_file, self._run_id + "\n")

    def _find_run(self, id_file: str) -> str | None:
        """The MLflow run that a run directory names, if it is there and not deleted."""
        if not gfile.exists(id_file):
            return None
        with gfile.open_text(id_file) as file:
            run_id = file.read().strip()
        try:
            found = self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run_id if found.info.lifecycle_stage == "active" else None

    def _newest_position(self, run_id: str) -> int:
        keys = self._client.get_run(run_id).data.metrics
        return max(
            (point.step for key in keys for point in self._client.get_metric_history(run_id, key)), default=0
        )

    def _create_run(self, run: ReportedRun) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(self.experiment)
        name = self.run_name or os.path.basename(os.path.normpath(run.path))
        run_id: str = self._client.create_run(
            experiment_id, run_name=name, tags={"gantry.workdir": run.path}
        ).info.run_id
        parameters = [
            self._mlflow.entities.Param(key, str(value)[:_LONGEST_VALUE])
            for key, value in run.hyper_parameters.items()
        ]
        for first in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(run_id, params=parameters[first : first + _MOST_PARAMETERS])
        return run_id

    def _replay(self, run: ReportedRun) -> None:
        directory = RunDirectory(run.path)
        for row in read_rows(directory.train_log):
            if row["examples"] <= run.done_examples:
                self.write_row(row)
        for row in read_rows(directory.eval_log):
            if row["examples"] <= run.done_examples:
                self.write_evaluation(row)

    def write_config(self, text: str) -> None:
        """Writes the artifact config.gin."""
        with self._reraise_errors():
            self._client.log_text(self._run_id, text, "config.gin")

    def write_row(self, row: Mapping[str, float]) -> None:
        """Writes a metric for each key."""
        self._log({key: value for key, value in row.items() if key not in ("examples", "time_unix")}, row)

    def write_evaluation(self, row: Mapping[str, float | str]) -> None:
        """Writes a metric for each of the evaluation, such as "val/psnr_db"."""
        prefix = "metric/"
        values = {
            f"{row['split']}/{key.removeprefix(prefix)}": value
            for key, value in row.items()
            if key.startswith(prefix)
        }
        self._log(values, row)

    def write_samples(self, grid: np.ndarray, *, examples: int) -> None:
        """Writes an image."""
        with self._reraise_errors():
            self._client.log_image(self._run_id, grid, key="samples", step=examples)

    def close(self) -> None:
        """Marks the MLflow run as ended."""
        if self._run_id:
            with self._reraise_errors():
                self._client.set_terminated(self._run_id)

    def _log(self, values: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        written_ms = round(1000 * row.get("time_unix", time.time()))
        metrics = [
            self._mlflow.entities.Metric(
                key, math.nan if value is None else value, written_ms, row["examples"]
            )
            for key, value in values.items()
        ]
        with self._reraise_errors():
            for first in range(0, len(metrics), _MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=metrics[first : first + _MOST_METRICS])

    @contextlib.contextmanager
    def _reraise_errors(self) -> Iterator[None]:
        """Raises what MLflow raises, from its database to its server, as one line."""
        try:
            yield
        except ConfigurationError:
            raise
        except Exception as error:  # a database, a network and a disk have errors of their own
            reason = str(error).strip().split("\n")[0]
            raise ConfigurationError(
                f"MlflowTracker.uri = {self.uri!r}: MLflow fails ({type(error).__name__}: {reason}); "
                "mend it, or train without the tracker"
            ) from error


def _import_mlflow(*, in_a_file: bool) -> Any:
    """The module mlflow, which is large, so that it is imported only where it is used.

    Args:
      in_a_file: whether the store in a file is needed too.

    Raises:
      ConfigurationError: it is not installed.
    """
    # It would send statistics about its use.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        mlflow = importlib.import_module("mlflow")
        for name in ("sqlalchemy", "alembic") if in_a_file else ():
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"MlflowTracker: the package {error.name} is not installed; install the extra with "
            "pip install -e '.[mlflow]', or train without the tracker"
        ) from error
    return mlflow
