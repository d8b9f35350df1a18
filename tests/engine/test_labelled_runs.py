"""Runs that learn classes or numbers, through the programs: data, training, kills, evaluation, refusals."""

import csv
import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

import engine.doctor
import engine.preview
from data.prepare import prepare
from engine.errors import ConfigurationError
from engine.evaluate import evaluate
from engine.evaluation.comparison import compare
from engine.evaluation.text_table import table
from engine.export import export
from engine.report import report
from engine.storage.run_directory import read_rows
from engine.train import train
from tests.helpers.killing import ForkedProgram, differences

SMALL = (
    "LOAD_SIZE = 0",
    "CROP_SIZE = 16",
    "BATCH_SCHEDULE = 5",
    "CPU_REPLICAS = 2",
    "STRATEGY = 'mirrored'",
    "label_network.LabelNetwork.filters = 4",
    "label_network.LabelNetwork.stages = 2",
    "SAMPLE_EVERY = 0",
    "LOG_EVERY = 1",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Folder with "shades", two classes of images, and "levels", their brightness in a CSV file."""
    folder = tmp_path_factory.mktemp("made")
    draw, rows = np.random.default_rng(0), []
    for index in range(40):
        level = draw.uniform(0, 255)
        shade = "bright" if level > 127 else "dark"
        os.makedirs(folder / "source" / shade, exist_ok=True)
        picture = np.clip(level + draw.normal(0, 9, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "source" / shade / f"{index:02d}.png")
        rows.append([f"{shade}/{index:02d}.png", level])
    with open(folder / "levels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "level"], *rows])
    shared = {"layout": "labelled", "source": str(folder / "source"), "data_dir": str(folder / "datasets")}
    prepare(name="shades", **shared, val_fraction=0.2, test_fraction=0.2)
    prepare(name="levels", **shared, val_fraction=0.2, test_fraction=0.2, targets=str(folder / "levels.csv"))
    return str(folder / "datasets")


def params(data_dir, dataset, *more):
    return [*SMALL, f"DATA_DIR = {data_dir!r}", f"DATASET = {dataset!r}", *more]


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """Run directories of both tasks, after 40 examples, by data set."""
    folder = tmp_path_factory.mktemp("runs")
    for dataset, file in (("shades", "classification"), ("levels", "regression")):
        train(
            gin_files=[f"gin/{file}.gin"],
            gin_params=params(data_dir, dataset, "TOTAL_EXAMPLES = 40", "EVALUATE_EVERY = 20"),
            workdir=str(folder / dataset),
        )
    return folder


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_are_evaluated_into_a_table_of_predictions(runs):
    workdir = str(runs / "levels")
    found = evaluate(workdir=workdir, split="test")
    rows = rows_of(f"{workdir}/evaluations/test_00000040.csv")
    assert list(rows[0]) == ["name", "example", "prediction", "target", "mse", "mae"]
    errors = np.array([float(row["prediction"]) - float(row["target"]) for row in rows])
    assert len(errors) == found.examples == 8
    row = read_rows(f"{workdir}/eval.jsonl")[-1]
    assert row["metric/rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert row["metric_low/rmse"] < row["metric/rmse"] < row["metric_high/rmse"]
    assert row["metric_low/r2"] < row["metric/r2"] < row["metric_high/r2"]
    text = table(found, split="test")
    assert "baseline: mean target" in text and "95 % interval" in text and "R2" in text
    assert [each.verdict for each in compare(found, found, names=("a", "b"))] == ["undecided"] * 2
    with open(f"{workdir}/dataset.json") as file:
        recorded = json.load(file)
    assert (recorded["target_kind"], recorded["target_names"]) == ("numbers", ["level"])


def test_classes_are_evaluated_by_name(runs):
    workdir = str(runs / "shades")
    found = evaluate(workdir=workdir, split="val", checkpoint="best")
    (path,) = [name for name in os.listdir(f"{workdir}/evaluations") if name.startswith("val_")]
    rows = rows_of(f"{workdir}/evaluations/{path}")
    assert list(rows[0]) == ["name", "example", "prediction", "target", "accuracy", "cross_entropy"]
    assert {row["target"] for row in rows} == {"bright", "dark"}
    hits = [row["prediction"] == row["target"] for row in rows]
    assert np.mean(hits) == found.metrics["accuracy"] == np.mean([float(row["accuracy"]) for row in rows])
    assert "baseline: most frequent class, " in table(found, split="val")


def test_reports_previews_and_plans(runs, data_dir, tmp_path):
    report(runs=[str(runs / "levels"), str(runs / "shades")], output=str(tmp_path / "report"))
    text = (tmp_path / "report" / "report.html").read_text()
    assert "Accuracy" in text and "RMSE" in text and "grey levels" not in text
    settings = {"gin_files": ["gin/classification.gin"], "gin_params": params(data_dir, "shades")}
    engine.preview.preview(**settings, output=str(tmp_path / "sheet.png"), examples=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[1] in (16, 40) and sheet.size[0] % 24 == 16  # inputs alone, with gaps of 8
    plan = engine.doctor.plan_report(**settings, measure_memory=False)
    assert "Network classifier: " in plan and "Best checkpoint: the highest accuracy on val" in plan


def test_what_is_for_images_is_refused_in_one_line(runs, translate, tmp_path):
    workdir = str(runs / "shades")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    code, _, err = translate(workdir=workdir, input=str(tmp_path / "a.png"), output=str(tmp_path / "out"))
    assert code == 2 and err.count("\n") == 1 and "predicts labels and makes no images" in err
    with pytest.raises(ConfigurationError, match="predicts labels and makes no images"):
        export(workdir=workdir, output=str(tmp_path / "export"))
    with pytest.raises(ConfigurationError, match="this run predicts labels; evaluate a split"):
        evaluate(workdir=workdir, input=str(tmp_path), target=str(tmp_path))
    with pytest.raises(ConfigurationError, match="metric 'ms_ssim': is of images"):
        evaluate(workdir=workdir, metrics=["ms_ssim"])


GROUPS = (
    "a/parameter_groups.ParameterGroup.pattern = 'classifier/stage1_*'",
    "a/parameter_groups.ParameterGroup.frozen = True",
    "b/parameter_groups.ParameterGroup.pattern = 'classifier/stage2_*'",
    "b/parameter_groups.ParameterGroup.learning_rate = 1e-4",
    "c/parameter_groups.ParameterGroup.pattern = 'classifier/head/bias'",
    "c/parameter_groups.ParameterGroup.learning_rate = 5e-4",
)
NAMES = "[{}]".format(", ".join(f"@{scope}/parameter_groups.ParameterGroup()" for scope in "abc"))


def test_fine_tuning_killed_and_stopped_in_the_middle_ends_with_the_same_bits(data_dir, tmp_path):
    """Three groups on two replicas: the same run undisturbed, and with a SIGKILL and a SIGTERM."""
    (tmp_path / "groups.gin").write_text(
        "from __gin__ import dynamic_registration\nfrom engine import experiment\n"
        f"from engine import parameter_groups\nexperiment.Experiment.parameter_groups = {NAMES}\n"
    )
    settings = params(data_dir, "shades", "TOTAL_EXAMPLES = 150", "EVALUATE_EVERY = 50", "SAVE_EVERY = 20")
    arguments = ["--gin_file=gin/classification.gin", f"--gin_file={tmp_path / 'groups.gin'}"]
    arguments += [f"--gin_param={param}" for param in (*settings, *GROUPS)]
    program, (whole, broken) = ForkedProgram(), (str(tmp_path / name) for name in ("whole", "broken"))
    try:
        program.start([*arguments, f"--workdir={whole}"], f"{whole}.txt")
        assert program.wait() == 0
        for number, examples in ((signal.SIGKILL, 45), (signal.SIGTERM, 95)):
            program.start([*arguments, f"--workdir={broken}"], f"{broken}.txt")
            while not any(row["examples"] >= examples for row in read_rows(f"{broken}/train.jsonl")):
                assert not program.has_ended()
                time.sleep(0.005)
            program.send_signal(number)
            assert program.wait() == (42 if number == signal.SIGTERM else -number)
        program.start([*arguments, f"--workdir={broken}"], f"{broken}.txt")
        assert program.wait() == 0
    finally:
        program.close()
    assert differences(broken, whole) == []
