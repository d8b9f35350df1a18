"""The best checkpoint and early stopping in runs whose evaluations are written down beforehand."""

import json
import os

import numpy as np
import pytest

from engine.early_stopping import EarlyStopping
from engine.errors import ConfigurationError, RunInterruptedError
from engine.evaluation.results import Evaluation, ImageMetrics
from engine.gin_config.free_settings import free_to_change
from engine.outer_loop.best_checkpoint import best_line
from engine.outer_loop.stopping import stopping_lines
from engine.schedules import ReduceOnPlateau
from engine.smoothing import CentredWindow, Exponential
from engine.storage import checkpoints
from engine.storage.run_directory import read_rows
from engine.task import Adam
from engine.train import _forget_other_best
from tests.helpers.runs import stop_at, variables
from tests.helpers.scale_task import SIZE, Scale

PSNR = {4: 10.0, 8: 12.0, 12: 11.5, 16: 12.5, 20: 11.0, 24: 12.4, 28: 12.0, 32: 11.0, 36: 10.0, 40: 9.0}
SETTINGS = {
    "total_examples": 40,
    "evaluate_every": 4,
    "batch_schedule": 2,
    "save_every": 8,
    "sample_every": 100,
    "keep_checkpoints": 10,
}


@pytest.fixture
def make_run(make_trainer, noise_pairs):
    """Builds a trainer whose evaluations give the PSNR of `series` at their positions."""

    def make(series=PSNR, *, task=None, name="psnr_db", **settings):
        data = noise_pairs(size=SIZE)
        trainer = make_trainer(task or Scale(), data, **SETTINGS | settings)

        def evaluate(split):
            assert split == "val"
            metrics = {"psnr_db": 0.0, "ssim": 0.0, "mae": 0.0, name: series[trainer.examples]}
            values = {metric: np.array([value]) for metric, value in metrics.items()}
            return Evaluation(examples=5, translations=ImageMetrics(values=values))

        trainer.evaluator.evaluate = evaluate
        return trainer

    return make


def log_of(trainer):
    with open(trainer.run_directory.console_log) as file:
        return file.read()


def done_of(trainer):
    with open(trainer.run_directory.done) as file:
        return json.load(file)


def inodes(directory):
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


def test_a_run_that_is_stopped_at_every_evaluation_ends_where_it_would(make_run, tmp_path):
    """On one and on two replicas in turn. The mean of three evaluations is largest, 12.0, from 8 to 16."""
    stopping = EarlyStopping(patience=12, smoothing=CentredWindow(evaluations=3))
    settings = {"early_stopping": stopping, "precision": "float64"}
    whole = make_run(**settings)
    summary = whole.run()
    assert summary.examples == 28
    reason = (
        "stopped early at 28 of 40 examples: psnr_db (mean of 3) has not improved on 12.00 for 12 examples "
        "(1 epoch); a larger EarlyStopping.patience or TOTAL_EXAMPLES continues the run"
    )
    assert summary.stopped_early == reason and reason in log_of(whole)
    assert done_of(whole) == {"step": 14, "examples": 28, "stopped_early": reason}
    assert checkpoints.list_checkpoints(whole.run_directory.checkpoints)[-1] == 28
    assert os.listdir(whole.run_directory.samples) == ["samples_00000028.png"]

    workdir = str(tmp_path / "stopped")
    for number, position in enumerate(range(4, 28, 4)):
        part = make_run(**settings, workdir=workdir, cpu_replicas=2 - number % 2)
        part.restore()
        stop_at(part, position)
        with pytest.raises(RunInterruptedError, match=f"saved at {position} of 40"):
            part.run()
    last = make_run(**settings, workdir=workdir)
    assert last.restore() == 24
    assert last.run().stopped_early == reason
    expected, found = variables(whole), variables(last)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 0 if name.startswith("decision/") else 1e-12
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)
    assert checkpoints.list_checkpoints(last.run_directory.best) == [16]


def test_a_run_that_stopped_early_stays_so_until_it_may_be_longer(make_run):
    settings = {"early_stopping": EarlyStopping(patience=8), "log_every": 10}
    run = make_run(**settings)
    assert run.run().examples == 24
    assert [row["examples"] for row in read_rows(run.run_directory.train_log)][-2:] == [20, 24]
    workdir = run.run_directory.path

    def start(**changes):
        again = make_run(**settings | {"workdir": workdir} | changes)
        again.restore()
        began = len(log_of(again))
        return again.run(), log_of(again)[began:]

    before = inodes(run.run_directory.checkpoints)
    summary, log = start()
    assert (summary.examples, summary.metrics) == (24, {})
    assert log.startswith("stopped early at 24 of 40 examples: psnr_db has not improved on 12.50") and (
        log.count("\n") == 1
    )
    assert inodes(run.run_directory.checkpoints) == before and os.path.exists(run.run_directory.done)
    summary, log = start(early_stopping=EarlyStopping(patience=12))
    assert summary.examples == 28 and "resuming at 24 of 40" in log
    summary, log = start(total_examples=41)
    assert "goes on because TOTAL_EXAMPLES was raised to 41" in log
    assert summary.examples == 36 and "for 8 examples" in summary.stopped_early
    # Early stopping can be switched off, or added to a run that has none of its variables.
    summary, _ = start(early_stopping=None)
    assert (summary.examples, summary.stopped_early) == (40, None)
    assert "stopped_early" not in done_of(run)
    assert not any("stopping" in name for name in variables(make_run()))
    late = dict.fromkeys(range(40, 80, 2), 1.0)
    summary, _ = start(series=late, total_examples=60)
    assert summary.examples == 52


@pytest.mark.parametrize(("metric", "best"), [("psnr_db", 16), ("mae", 40)])
def test_the_best_is_that_of_any_metric_and_written_once(make_run, metric, best):
    run = make_run(name=metric, best_metric=metric)
    run.run()
    assert checkpoints.list_checkpoints(run.run_directory.best) == [best]
    log = log_of(run)
    if metric == "psnr_db":
        lines = [line for line in log.splitlines() if line.startswith(metric)]
        assert lines == [
            "psnr_db is 10.00 in the first evaluation, saved",
            "psnr_db improved from 10.00 to 12.00, saved",
            "psnr_db improved from 12.00 to 12.50, saved",
        ]
    else:
        assert "mae improved from 10.00 to 9.00, saved" in log
    # At 16 both were written, and at 40 if that is the best.
    copies = [f"{path}/{best:08d}" for path in (run.run_directory.best, run.run_directory.checkpoints)]
    assert inodes(copies[0]) == inodes(copies[1]) and len(inodes(copies[0])) == 3
    assert all(entry.stat().st_nlink == 2 for entry in os.scandir(copies[0]))
    values = variables(run)
    assert values["best"] == (9.0 if metric == "mae" else 12.5)
    if best == 40:
        for directory in (run.run_directory.best, run.run_directory.checkpoints):
            other = make_run(name=metric, best_metric=metric)
            checkpoints.restore(other.state, directory, 40)
            for name, value in variables(other).items():
                np.testing.assert_array_equal(value, values[name], err_msg=name)


def test_another_metric_chooses_the_best_anew(make_run):
    run = make_run(total_examples=8)
    run.run()
    imports = "from engine import experiment\nfrom models import application_features\n"
    config = imports + "experiment.Experiment.best_metric = {!r}\n"
    settings = {"workdir": run.run_directory.path, "name": "mae", "best_metric": "mae"}
    again = make_run(**settings)
    assert again.restore() == 8
    for same in (config.format("mae"), None):  # the same metric; a new run
        _forget_other_best(again.experiment, again, same, config.format("mae"))
        assert again.state.best.numpy() == 12.0
    _forget_other_best(again.experiment, again, config.format(None), config.format("mae"))  # psnr_db
    assert "was chosen by psnr_db and now is by mae" in log_of(run)
    # A kill here would leave a new config.gin and this checkpoint.
    killed = make_run(**settings)
    assert killed.restore() == 8 and np.isnan(killed.state.best.numpy())
    again.run()
    assert again.state.best.numpy() == 9.0
    assert checkpoints.list_checkpoints(again.run_directory.best) == [40]


def test_kid_by_other_features_chooses_the_best_anew(make_run):
    extractor = (
        "from engine import experiment\nfrom models import application_features\n"
        "experiment.Experiment.feature_extractor = @application_features.ApplicationFeatures()\n"
        "application_features.ApplicationFeatures.weights = {!r}\n"
    )
    kid = "experiment.Experiment.best_metric = 'kid'\n"
    first, second = (extractor.format(weights) + kid for weights in ("one.h5", "other.h5"))
    run = make_run(name="kid", best_metric="kid")
    for before, now, is_kept in (
        (first, first, True),
        (kid, kid, True),
        (first, second, False),
        (kid, first, False),
        (second, kid, False),
    ):
        run.state.best.assign(0.5)
        before, now = (
            text if "import" in text else f"from engine import experiment\n{text}" for text in (before, now)
        )
        _forget_other_best(run.experiment, run, before, now)
        assert np.isnan(run.state.best.numpy()) != is_kept
    assert "was chosen by kid and now is by kid of other features" in log_of(run)
    other = make_run(best_metric="mae")
    other.state.best.assign(0.5)
    mae = first.replace("'kid'", "'mae'")
    _forget_other_best(other.experiment, other, mae, mae.replace("one.h5", "other.h5"))
    assert other.state.best.numpy() == 0.5


def test_the_features_stay_while_something_follows_kid(make_run):
    name = "engine.experiment.Experiment.feature_extractor"
    weights = "models.application_features.ApplicationFeatures.weights"
    for settings, is_free in (
        ({"best_metric": "kid"}, True),
        ({"early_stopping": EarlyStopping()}, True),
        ({"early_stopping": EarlyStopping(metric="fid")}, False),
        ({"early_stopping": EarlyStopping(), "best_metric": "kid"}, False),
    ):
        free = free_to_change(make_run(**settings).experiment)
        assert (name in free) == (weights in free) == is_free, settings


def test_the_learning_rate_of_a_row_is_the_one_in_use(make_run):
    """Five falls by a plateau, down to the floor, on an optimizer whose steps tell its rate."""
    schedule = ReduceOnPlateau(patience=0, factor=0.5, floor=0.2, smoothing=Exponential(decay=0.0))
    adam = Adam(learning_rate=0.1, beta1=0.0, beta2=0.0, schedule=schedule)
    run = make_run({at: float(-at) for at in PSNR}, task=Scale(adam=adam), precision="float64")
    last = []

    def weight():
        return run.state.networks["first"].trainable_variables[0].numpy()

    progress = run.loop.run

    def watched(*args, **kwargs):
        before = weight()
        result = progress(*args, **kwargs)
        last.append(np.abs(weight() - before).max() / result.steps)
        return result

    run.loop.run = watched
    run.run()
    rows = read_rows(run.run_directory.train_log)
    rates = [row["learning_rate/fit"] for row in rows]
    expected = [0.1 * (1.0, 1.0, 0.5, 0.25, 0.2)[min((row["examples"] - 1) // 4, 4)] for row in rows]
    assert rates == pytest.approx(expected, rel=1e-12)
    # With both betas 0, Adam moves each weight by the rate in each step, against the sign of its gradient.
    assert last == pytest.approx(rates, rel=1e-5)
    falls = [line for line in log_of(run).splitlines() if line.startswith("the learning rate")]
    assert falls == [
        f"the learning rate of optimizer adam changes by its schedule: factor {before} to {after}"
        for before, after in (("1", "0.5"), ("0.5", "0.25"), ("0.25", "0.2"))
    ]


def test_plans_say_what_chooses_and_when_a_run_would_end(make_run):
    run = make_run(early_stopping=EarlyStopping(patience="2ep", minimum_change=0.5), best_metric="mae")
    assert best_line(run.plan, run.experiment.data) == (
        "Best checkpoint: the lowest mae on val, measured every 4 examples"
    )
    assert stopping_lines(run.plan) == [
        "Early stopping: when mae has not improved by more than 0.5 for 24 examples (2 epochs); at example "
        "28 at the earliest"
    ]
    run = make_run(early_stopping=EarlyStopping(patience="3ep", metric="ssim"), evaluate_every=5)
    assert stopping_lines(run.plan)[0].endswith(
        "ssim has not improved for 36 examples (3 epochs); at example 45 at the earliest; TOTAL_EXAMPLES = "
        "40 ends the run before that"
    )
    end = make_run(evaluate_every=0)
    assert best_line(end.plan, end.experiment.data).endswith(
        "at the end only (EVALUATE_EVERY = 0), so it is the last one"
    )
    assert stopping_lines(end.plan) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"best_metric": "psnr"},
            "Experiment.best_metric = 'psnr': unknown; use one of mae, mse, rmse, psnr_db",
        ),
        (
            {"best_metric": "cycle_input_ssim"},
            "Experiment.best_metric = 'cycle_input_ssim': evaluations of this task do not measure it; "
            "use one of mae, mse, rmse, psnr_db, ssim",
        ),
        (
            {"early_stopping": EarlyStopping(metric="x_mae")},
            "EarlyStopping.metric = 'x_mae': evaluations of this task do not measure it; use one of mae",
        ),
        (
            {"early_stopping": EarlyStopping(), "evaluate_every": 0},
            "EarlyStopping decides after evaluations, and EVALUATE_EVERY = 0 makes none before the end; set ",
        ),
    ],
)
def test_metrics_that_cannot_choose_are_refused(make_run, settings, message):
    with pytest.raises(ConfigurationError) as caught:
        make_run(**settings)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
