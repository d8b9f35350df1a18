"""The MLflow tracker: one line where MLflow is missing; one point at each position of a resumed run."""

import math
import sys

import numpy as np
import pytest

from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.log_writer import ReportedRun
from engine.mlflow_tracker import MlflowTracker
from engine.storage.run_directory import RunDirectory, append_row


def test_it_is_imported_only_to_start_and_named_if_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    experiment, _ = loader.load_experiment(gin_files=["gin/quickstart.gin", "gin/mlflow.gin"])
    assert isinstance(experiment.tracker, MlflowTracker)
    with pytest.raises(ConfigurationError, match=r"mlflow is not installed; install .*\.\[mlflow\]") as error:
        experiment.tracker.start(ReportedRun(path=str(tmp_path), done_examples=0, total_examples=1))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow uses what SQLAlchemy will remove
@pytest.mark.parametrize("resumed_at", [4, 8])
def test_a_resumed_run_has_one_point_at_each_position(tmp_path, monkeypatch, resumed_at):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = RunDirectory(str(tmp_path / "mine"))
    run.create()

    def process(start, end, value):
        run.cut_logs(start)  # as a trainer does first
        tracker = MlflowTracker(uri=uri, experiment="tests")
        tracker.start(
            ReportedRun(
                path=run.path, done_examples=start, total_examples=12, hyper_parameters={"lr": 0.1, "x": "y"}
            )
        )
        tracker.write_config("SEED = 1\n")
        for examples in range(start + 2, end + 1, 2):
            row = {"examples": examples, "loss/gan": value, "grad": math.nan, "time_unix": 1.0 * examples}
            append_row(run.train_log, row)
            tracker.write_row(row)
            evaluated = {"examples": examples, "split": "val", "metric/ssim": value, "time_unix": 1.0}
            append_row(run.eval_log, evaluated)
            tracker.write_evaluation(evaluated)
        tracker.write_samples(np.zeros((4, 6, 3), np.uint8), examples=end)
        tracker.close()

    process(0, 8, 1.0)
    process(resumed_at, 12, 2.0)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (shown,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert shown.info.run_name == "mine" and shown.info.status == "FINISHED"
    assert shown.data.params == {"lr": "0.1", "x": "y"}
    for key in ("loss/gan", "val/ssim"):
        points = [(point.step, point.value) for point in client.get_metric_history(shown.info.run_id, key)]
        assert sorted(points) == [(s, 1.0 if s <= resumed_at else 2.0) for s in range(2, 13, 2)]
    assert all(math.isnan(point.value) for point in client.get_metric_history(shown.info.run_id, "grad"))
    artifacts = {artifact.path for artifact in client.list_artifacts(shown.info.run_id)}
    assert artifacts == {"config.gin", "images"}


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    tracker = MlflowTracker(uri=f"sqlite:///{tmp_path}/none/mlflow.db")
    (tmp_path / "none").write_text("a file")
    with pytest.raises(ConfigurationError, match="MlflowTracker.uri = 'sqlite:.*MLflow fails") as error:
        tracker.start(ReportedRun(path=str(tmp_path), done_examples=0, total_examples=1))
    assert "\n" not in str(error.value)
