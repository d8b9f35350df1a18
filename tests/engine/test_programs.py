"""The programs as a user starts them: exit codes, one-line errors, and a task of one's own."""

import contextlib
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues
from PIL import Image

import engine.doctor
import engine.evaluate
import engine.export
import engine.pack
import engine.report
import engine.sweep
import engine.train
import engine.translate
from engine.batching.memory_model import MemoryModel
from engine.cli import program
from engine.memory.probe import Probe
from engine.reporting.reporter import Reporter
from engine.storage.run_directory import RunDirectory, read_rows

NEW_GAN = os.path.join(os.path.dirname(__file__), "new_gan")
WGAN_GP = f"{NEW_GAN}/wgan_gp.gin"


def exit_code_of_train(*params, gin_file, workdir, flags=()):
    """Runs engine.train in this process."""
    argv = ["train", f"--workdir={workdir}", *flags] + ([f"--gin_file={gin_file}"] if gin_file else [])
    values = FlagValues()
    engine.train.define_flags(values)
    rest = values(argv + [f"--gin_param={param}" for param in params])
    return program.exit_code(engine.train.main, rest, values)


@pytest.fixture
def run_train(capfd, synthetic_datasets, tmp_path):
    """Runs engine.train in this process: exit code, and what it wrote to stderr; `run.said` to stdout."""

    def run(*params, gin_file="gin/quickstart.gin", workdir=None, flags=()):
        workdir = str(tmp_path / "run") if workdir is None else workdir
        params = [f"DATA_DIR = {synthetic_datasets!r}", *params]
        capfd.readouterr()
        code = exit_code_of_train(*params, gin_file=gin_file, workdir=workdir, flags=flags)
        run.said, errors = capfd.readouterr()
        return code, errors

    return run


@pytest.fixture(scope="module")
def six_examples(synthetic_datasets, tmp_path_factory):
    """A run of six examples, trained once: its folder, and what training printed."""
    workdir = tmp_path_factory.mktemp("six") / "run"
    params = [f"DATA_DIR = {synthetic_datasets!r}", "TOTAL_EXAMPLES = 6"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert exit_code_of_train(*params, gin_file=WGAN_GP, workdir=workdir) == 0
    return workdir, said.getvalue()


@pytest.fixture
def copied_run(six_examples, tmp_path):
    """The folder of a copy of that run, where `run_train` continues it."""
    return str(shutil.copytree(six_examples[0], tmp_path / "run"))


def assert_refused(result, *expected):
    code, errors = result
    assert code == 2
    assert errors.count("\n") == 1 and "Traceback" not in errors
    for text in expected:
        assert text in errors


@pytest.mark.parametrize(
    "params, expected",
    [
        (["pix2pix.Pix2Pix.generator = 'unet_256'"], ["unet_256", "64x64", "multiples of 256"]),
        (["pix2pix.Pix2Pix.generator = 'unet_512'"], ["'unet_512'", "unet_256"]),
        (["DATASET = 'never_prepared'"], ["never_prepared", "python -m data.prepare"]),
        (["LOAD_SIZE = 0", "CROP_SIZE = 256"], ["128", "256"]),
        (["LOAD_SIZE = 60"], ["crop_size = 64", "load_size"]),
        (["TOTAL_EXAMPELS = 3"], ["TOTAL_EXAMPELS", "did you mean TOTAL_EXAMPLES"]),
        (["CROP_SIZE = 'big'"], ["CROP_SIZE = 'big'", "takes int"]),
        (["task.Adam.betta1 = 3"], ["betta1", "correct the name"]),
        (["BATCH_SCHEDULE = '0:4, 3:0'"], ["'3:0'", "at least 1"]),
        (["BATCH_SCHEDULE = 1000"], ["'1000'", "400 training examples", "lower the batch"]),
        (["BATCH_SCHEDULE = '0:1, 40:2, 30:4'"], ["'30:4'", "does not rise"]),
        (["BATCH_SCHEDULE = '0:1, 40:-2'"], ["'40:-2'", "at least 1"]),
        (["BATCH_SCHEDULE = '0:1, 3days:2'"], ["'3days:2'", "'20ep'"]),
        (["BATCH_SCHEDULE = '0:1, 40:401'"], ["'40:401'", "400 training examples"]),
        (
            ["BATCH_SCHEDULE = '0:1, 40:2, 80:4'", "LEARNING_RATE_RULE = 'square_root'"],
            ["'80:4'", "beta1 = 1 - 4 * (1 - 0.5) = -1", "'square_root_beta1_kept'"],
        ),
        (["LARGEST_MICRO_BATCH = 0"], ["LARGEST_MICRO_BATCH = 0", "'auto'"]),
        (["LARGEST_MICRO_BATCH = 'most'"], ["LARGEST_MICRO_BATCH = 'most'", "'auto'"]),
        (["experiment.Experiment.memory_fraction = 1.5"], ["memory_fraction = 1.5", "0.8"]),
        (
            [
                "experiment.Experiment.noise_scale_smoothing = 1.0",
                "experiment.Experiment.measure_noise_scale = True",
            ],
            ["smoothing = 1.0", "[0, 1)"],
        ),
        (["STRATEGY = 'tpu'"], ["no TPU answers", "STRATEGY = 'auto'"]),
        (["STRATEGY = 'multi_worker'"], ["TF_CONFIG"]),
        (["PRECISION = 'float8'"], ["'float8'", "bfloat16"]),
        (["LEARNING_RATE_RULE = 'cubic'"], ["'cubic'", "square_root"]),
        (["NORM = 'layer'"], ["'layer'", "instance"]),
        (["TOTAL_EXAMPLES = 0"], ["TOTAL_EXAMPLES = 0", "at least 1"]),
        (["SEED = 4294967296"], ["SEED", "2**32"]),
    ],
)
def test_bad_configuration(run_train, params, expected):
    assert_refused(run_train(*params), *expected)


def test_binding_that_nothing_used(run_train, tmp_path):
    path = tmp_path / "constant.gin"
    path.write_text(
        "from __gin__ import dynamic_registration\nfrom engine import task\n"
        "include 'gin/quickstart.gin'\ntask.Adam.schedule = None\n"
    )
    refused = run_train("schedules.LinearDecay.decay = '3ep'", gin_file=str(path))
    assert_refused(refused, "nothing in this configuration uses schedules.LinearDecay.decay", "remove it")


def test_help_says_everything():
    programs = (engine.train, engine.evaluate, engine.translate, engine.export, engine.pack, engine.doctor)
    for module in (*programs, engine.report, engine.sweep):
        text = program.help_text(module.__doc__, module.define_flags)
        values = FlagValues()
        module.define_flags(values)
        assert f"python -m {module.__name__}" in text
        assert all(f"--{name}" in text and values[name].help in text for name in values)


def test_missing_flags(run_train):
    assert_refused(run_train(gin_file=None), "--gin_file=gin/quickstart.gin")
    assert_refused(run_train(workdir=""), "--workdir=runs/NAME")


def test_work_directory_that_cannot_be_written(run_train, tmp_path):
    (tmp_path / "file").write_text("")
    workdir = str(tmp_path / "file" / "run")
    assert_refused(run_train(workdir=workdir), workdir, "choose a directory")


def check_pictures_of_other_sizes(translate, workdir, tmp_path):
    """Networks built for one size refuse pictures of another; the other pictures are translated."""
    sizes = {"a": (40, 48), "b": (32, 32), "c": (56, 46), "d": (32, 32), "e": (40, 48)}
    (tmp_path / "in").mkdir()
    for name, (height, width) in sizes.items():
        Image.fromarray(np.zeros([height, width, 3], np.uint8)).save(tmp_path / "in" / f"{name}.png")
    flags = {"workdir": workdir, "input": tmp_path / "in"}
    code, told, errors = translate(**flags, output=tmp_path / "out")
    assert code == 2 and errors.count("\n") == 1 and "3 of 5 pictures are refused" in errors
    assert sorted(os.listdir(tmp_path / "out")) == ["b.png", "d.png"]
    for name in "ace":
        height, width = sizes[name]
        assert f"{name}.png: the network, trained on 32x32 pixels (height x width), does not take" in told
        assert f"take {height}x{width} (" in told
    assert told.count("; resize the picture, or add --resize=as_trained\n") == 3
    assert translate(**flags, output=tmp_path / "resized", resize="as_trained")[0] == 0
    assert len(os.listdir(tmp_path / "resized")) == 5


def test_a_gan_of_ones_own_translates(translate, copied_run, tmp_path):
    check_pictures_of_other_sizes(translate, copied_run, tmp_path)


def test_divergence_exits_3_and_names_phase_and_step(run_train, copied_run):
    code, errors = run_train("LEARNING_RATE = 1e30", gin_file=WGAN_GP, flags=["--allow_config_change"])
    assert code == 3
    assert "diverged in step 4: " in errors and "loss/critic/distance" in errors
    assert "checkpoint at 6 examples was saved before that" in errors


def test_run_continues_refuses_changes_and_is_evaluated(run_train, six_examples, copied_run, tmp_path):
    original, said = six_examples
    assert said.endswith(f"python -m engine.evaluate --workdir={original} --split=test\n")
    workdir = copied_run
    # The same again: complete already. A larger total goes on, on other devices too.
    assert run_train("TOTAL_EXAMPLES = 6", gin_file=WGAN_GP)[0] == 0
    assert run_train("TOTAL_EXAMPLES = 12", "CPU_REPLICAS = 1", gin_file=WGAN_GP)[0] == 0
    assert [row["examples"] for row in read_rows(f"{workdir}/train.jsonl")] == [3, 6, 9, 12]
    changed = run_train("SEED = 3", gin_file=WGAN_GP)
    assert_refused(changed, "Experiment.seed: 0 -> 3", "--allow_config_change")
    # What cannot work anyway is not told as a change.
    assert_refused(run_train("BATCH_SCHEDULE = '0:1, 3:x'", gin_file=WGAN_GP), "'3:x'", "'0:1, 4000:2")
    assert_refused(run_train("PRECISION = 'float8'", gin_file=WGAN_GP), "'float8'", "bfloat16")
    files = "config.gin dataset.json train.jsonl eval.jsonl log.txt checkpoints best samples tensorboard"
    assert sorted(os.listdir(workdir)) == sorted([*files.split(), "fingerprint.json", "lock", "DONE"])

    evaluation = engine.evaluate.evaluate(workdir=workdir, split="test", checkpoint="best")
    assert evaluation.examples == 60
    last = read_rows(f"{workdir}/eval.jsonl")[-1]
    assert last["split"] == "test" and last["metric/ssim"] == evaluation.model["ssim"]
    for wrong in ({"checkpoint": "7"}, {"split": "nowhere"}, {"workdir": str(tmp_path / "none")}):
        with pytest.raises(ValueError, match="7|nowhere|holds no run"):
            engine.evaluate.evaluate(**{"workdir": workdir, **wrong})


def test_batch_beyond_the_total_leaves_no_time(tmp_path):
    row = {"examples": 13, "epoch": 1.3, "global_batch": 4, "examples_per_sec": 2.0}
    reporter = Reporter(RunDirectory(str(tmp_path)), total_examples=10, done_examples=4)
    for examples in (4, 13):
        reporter.log_row({**row, "examples": examples, "data_wait_fraction": 0.0, "host_memory_bytes": 2**30})
    reporter.close()
    first, last = (tmp_path / "log.txt").read_text().splitlines()
    assert "ETA 0m00s" in last and "13/10 ex" in last
    assert "ETA 0m03s" in first


def test_new_task_in_one_file_trains_on_two_replicas(run_train, tmp_path):
    with open(f"{NEW_GAN}/wgan_gp.py") as file:
        assert len(file.readlines()) < 60
    assert run_train(gin_file=WGAN_GP) == (0, "")
    rows = read_rows(str(tmp_path / "run" / "train.jsonl"))
    assert len(rows) == 10 and rows[-1]["replicas"] == 2
    assert all(np.isfinite(row["loss/critic/penalty"]) for row in rows)
    assert ["loss/generator/score" in row for row in rows] == [False, True] * 5
    # The penalty pulls the norm of the critic's gradient towards 1.
    assert (
        run_train(
            "TOTAL_EXAMPLES = 300",
            "LEARNING_RATE = 0.01",
            "LOG_EVERY = 30",
            gin_file=WGAN_GP,
            workdir=str(tmp_path / "longer"),
        )[0]
        == 0
    )
    rows = read_rows(str(tmp_path / "longer" / "train.jsonl"))
    assert rows[-1]["loss/critic/penalty"] < 0.5 * rows[0]["loss/critic/penalty"]


def test_doctor_prints_the_plan(synthetic_datasets, capsys, monkeypatch):
    measured = Probe(
        points=((1, 3 * 2**30),),
        model=MemoryModel(constant_bytes=2 * 2**30, bytes_per_example=2**30),
        budget_bytes=8 * 2**30,
        largest_micro_batch=6,
    )
    monkeypatch.setattr("engine.memory.micro_batch_limit.measure", lambda experiment, text: measured)
    print(engine.doctor.machine_report())
    plan = engine.doctor.plan_report(
        gin_files=["gin/quickstart.gin"],
        gin_params=[
            f"DATA_DIR = {synthetic_datasets!r}",
            "CPU_REPLICAS = 2",
            "BATCH_SCHEDULE = '0:1, 4:6, 10:3'",
            "TOTAL_EXAMPLES = 16",
            "LEARNING_RATE_RULE = 'linear'",
            "LARGEST_MICRO_BATCH = 2",
            "pix2pix.Pix2Pix.generator_filters = 2",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
        ],
    )
    report = capsys.readouterr().out
    accelerators = len(tf.config.list_physical_devices("GPU"))
    assert f"Number of accelerators: {accelerators}\n" in report
    assert "Network generator: " in plan and "  V100 16         16   13.72" in plan
    assert "micro-batches of 1: 3,072 MiB; by formula " in plan
    assert "Recipe for more devices, by LEARNING_RATE_RULE = 'linear'" in plan
    assert "the run of 16 examples takes about " in plan
    rows = [line.split() for line in plan.splitlines()[-3:]]
    assert [row[:6] for row in rows] == [
        ["0", "1", "2", "1", "1", "4"],
        ["4", "6", "2", "2", "2", "1"],
        ["10", "3", "2", "2", "1", "2"],
    ]
    assert [float(row[6]) for row in rows] == [2e-4, 12e-4, 6e-4]
    assert [row[-2:] for row in rows] == [["3.00", "GiB"], ["4.00", "GiB"], ["4.00", "GiB"]]
    assert (
        "2.00 GiB and 1.000 GiB for each example of a micro-batch; 8.00 GiB may be used: the plan fits"
        in plan
    )
    does_not = engine.doctor.plan_report(
        gin_files=["gin/quickstart.gin"],
        gin_params=[f"DATA_DIR = {synthetic_datasets!r}", "BATCH_SCHEDULE = '0:1, 4:7'"],
    )
    assert "the plan does NOT fit; LARGEST_MICRO_BATCH = 6 or 'auto'" in does_not


def test_doctor_prints_what_training_will_decide(synthetic_datasets):
    plan = engine.doctor.plan_report(
        gin_files=["gin/quickstart.gin", "gin/schedules/noise_scale.gin"],
        gin_params=[f"DATA_DIR = {synthetic_datasets!r}", "LEARNING_RATE_RULE = 'none'"],
        measure_memory=False,
    )
    assert "Strategy: OneDeviceStrategy, 1 replica on " in plan
    rows = [line.split() for line in plan.splitlines()[-5:]]
    assert rows[0][:3] == ["0", "1", "1"]
    assert [row[:3] for row in rows[1:]] == [["when", "decided", str(size)] for size in (2, 4, 8, 16)]


def test_program_in_a_process_of_its_own(tmp_path):
    """Real start-up: nothing but the one line on stderr, no traceback, exit code 2."""
    for args in (["--gin_file=gin/nowhere.gin", f"--workdir={tmp_path}"], ["--no_such_flag"]):
        done = subprocess.run(
            [sys.executable, "-m", "engine.train", *args], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
