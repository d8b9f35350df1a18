"""What a run reports: TensorBoard's data over HTTP, a continued run, a tracker, the progress bar."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
import urllib.request
import warnings

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from engine.gin_config.diff import plain_settings
from engine.log_writer import LogWriter
from engine.reporting.console import status_line
from engine.reporting.log_rows import Speed
from engine.reporting.reporter import Reporter
from engine.storage.run_directory import RunDirectory
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

LOGGED = {
    "epoch": 0.0,
    "global_batch": 1,
    "examples_per_sec": 1.0,
    "data_wait_fraction": 0.0,
    "host_memory_bytes": 2**30,
}


@pytest.mark.parametrize("restarted_at", [0, 4, 10])
def test_a_continued_run_has_one_point_at_each_position(tmp_path, restarted_at):
    run = RunDirectory(str(tmp_path))
    run.create()
    for process, (start, end) in enumerate(((0, 12), (restarted_at, 20))):
        reporter = Reporter(
            run, total_examples=20, done_examples=start, hyper_parameters={"process": process}
        )
        reporter.log_config(f"process {process}")
        for examples in range(start + 2, end + 1, 2):
            reporter.log_row({"examples": examples, "process": process, **LOGGED})
        reporter.close()
        if process == 0:  # as a killed process leaves it
            (path,) = (tmp_path / "tensorboard").glob("*.v2")
            path.write_bytes(path.read_bytes() + b"half an event")
    shown = EventAccumulator(run.tensorboard, size_guidance={"tensors": 0})  # 0: all
    shown.Reload()
    # TensorFlow 2 writes scalars as tensors. Files of one process and second have no order.
    points = [(point.step, tf.make_ndarray(point.tensor_proto).item()) for point in shown.Tensors("process")]
    assert sorted(points) == [(step, float(step > restarted_at)) for step in range(2, 21, 2)]
    # Settings may have changed: TensorBoard shows those of the last start.
    (content,) = shown.PluginTagToContent("hparams").values()
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["process"].number_value == 1


CONFIG = """
import engine.experiment as experiment
import models.pix2pix as pix2pix

# Parameters for experiment.Experiment:
experiment.Experiment.batch_schedule = 2
experiment.Experiment.seed = %SEED
experiment.Experiment.log_every = 1
experiment.Experiment.task = @pix2pix.Pix2Pix()
SEED = 7

# Parameters for pix2pix.Pix2Pix:
pix2pix.Pix2Pix.gan_loss = 'bce'
pix2pix.Pix2Pix.dropout = False
pix2pix.Pix2Pix.top_k = 0.5
pix2pix.Pix2Pix.generator_optimizer = None
"""


def test_plain_settings():
    assert plain_settings(CONFIG, leave_out={"engine.experiment.Experiment.log_every"}) == {
        "experiment.Experiment.batch_schedule": 2,
        "experiment.Experiment.seed": 7,
        "experiment.Experiment.task": "@pix2pix.Pix2Pix()",
        "pix2pix.Pix2Pix.gan_loss": "bce",
        "pix2pix.Pix2Pix.dropout": False,
        "pix2pix.Pix2Pix.top_k": 0.5,
        "pix2pix.Pix2Pix.generator_optimizer": "None",
    }


class Tracker(LogWriter):
    """A tracker of a user's own."""

    def start(self, run):
        self.rows = [("start", run.done_examples, run.total_examples, dict(run.hyper_parameters))]

    def write_row(self, row):
        self.rows.append(("row", row["examples"], row["loss/generator/l1"]))

    def write_evaluation(self, row):
        self.rows.append((row["split"], row["examples"], row["metric/psnr_db"]))

    def write_samples(self, grid, *, examples):
        self.rows.append(("samples", examples, grid.shape))

    def close(self):
        self.rows.append(("closed",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run with everything that is off by default: histograms, a profiler window, a tracker."""
    from engine.experiment import Experiment
    from engine.outer_loop.trainer import Trainer

    run = RunDirectory(str(tmp_path_factory.mktemp("runs") / "mine"))
    run.create()
    tracker = Tracker()
    experiment = Experiment(
        task=SmallPix2Pix(),
        data=NoisePairs(),
        strategy="mirrored",
        cpu_replicas=2,
        total_examples=10,
        batch_schedule=2,
        log_every=4,
        sample_every=0,
        histograms_every=0,
        profile_at=4,
        profile_steps=2,
        tracker=tracker,
    )
    trainer = Trainer(experiment, run, config_text=CONFIG)
    trainer.run()
    return run, tracker, trainer


def test_a_tracker_of_ones_own_gets_what_the_files_get(trained):
    run, tracker, _ = trained
    rows = [json.loads(line) for line in open(run.train_log)]
    (evaluated,) = (json.loads(line) for line in open(run.eval_log))
    kinds = [row[0] for row in tracker.rows]
    assert kinds == ["start", "row", "row", "row", "val", "samples", "closed"]
    assert tracker.rows[0][1:3] == (0, 10)
    # Settings that do not matter to what is learned are no hyper-parameters.
    assert tracker.rows[0][3] == plain_settings(CONFIG, leave_out={"engine.experiment.Experiment.log_every"})
    logged = [("row", row["examples"], row["loss/generator/l1"]) for row in rows]
    assert tracker.rows[1:4] == logged and [row[1] for row in logged] == [4, 8, 10]
    assert tracker.rows[4] == ("val", 10, evaluated["metric/psnr_db"])


def test_histograms_hold_all_weights_and_the_profile_is_there(trained):
    run, _, trainer = trained
    shown = EventAccumulator(run.tensorboard, size_guidance={"tensors": 0})
    shown.Reload()
    tags = [tag for tag in shown.Tags()["tensors"] if tag.startswith("weights/")]
    weights = {
        f"weights/{name}/{weight.path}": weight.numpy()
        for name, network in trainer.state.networks.items()
        for weight in network.weights
    }
    assert sorted(tags) == sorted(weights) and "weights/generator/norm/moving_mean" in tags
    for tag, values in weights.items():
        (event,) = shown.Tensors(tag)
        buckets = tf.make_ndarray(event.tensor_proto)  # left, right, count
        assert event.step == 10 and buckets[:, 2].sum() == values.size
        np.testing.assert_allclose([buckets[0, 0], buckets[-1, 1]], [values.min(), values.max()], atol=1e-6)
    profiles = [name for _, _, names in os.walk(f"{run.tensorboard}/plugins/profile") for name in names]
    assert any(name.endswith(".xplane.pb") for name in profiles)


@pytest.fixture(scope="module")
def server(trained):
    """The address of a TensorBoard that shows the folder of the run."""
    with warnings.catch_warnings():  # of what its text plug-in imports
        warnings.simplefilter("ignore")
        from tensorboard.program import TensorBoard
    board = TensorBoard()
    board.configure(
        argv=["tensorboard", f"--logdir={os.path.dirname(trained[0].path)}", "--port=0", "--load_fast=false"]
    )
    return board.launch()


@pytest.fixture
def fetch(server):
    def fetch(path, body=None):
        request = urllib.request.Request(
            f"{server}data/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    return fetch


NAME = "mine/tensorboard"


def test_tensorboard_serves_what_the_run_reported(trained, fetch):
    run, _, _ = trained
    rows = [json.loads(line) for line in open(run.train_log)]
    (evaluated,) = (json.loads(line) for line in open(run.eval_log))

    tags = json.loads(fetch("plugin/scalars/tags"))[NAME]
    assert {"loss/generator/l1", "learning_rate/generator", "val/psnr_db", "examples_per_sec"} <= tags.keys()
    points = json.loads(fetch(f"plugin/scalars/scalars?run={NAME}&tag=loss/generator/l1"))
    assert [step for _, step, _ in points] == [row["examples"] for row in rows]
    logged = [row["loss/generator/l1"] for row in rows]
    np.testing.assert_allclose([value for _, _, value in points], logged, rtol=1e-6)
    ((_, step, value),) = json.loads(fetch(f"plugin/scalars/scalars?run={NAME}&tag=val/psnr_db"))
    assert step == 10 and value == pytest.approx(evaluated["metric/psnr_db"], rel=1e-6)

    (image,) = json.loads(fetch(f"plugin/images/images?run={NAME}&tag=samples&sample=0"))
    served = fetch(f"plugin/images/individualImage?{image['query']}")
    with open(f"{run.samples}/samples_00000010.png", "rb") as file:
        np.testing.assert_array_equal(tf.io.decode_png(served), tf.io.decode_png(file.read()))

    ((text,),) = [json.loads(fetch(f"plugin/text/text?run={NAME}&tag=config"))]
    assert "batch_schedule = 2" in text["text"]

    everything = {"experimentName": "", "startIndex": 0, "sliceSize": 9, "colParams": []}
    everything["allowedStatuses"] = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    (group,) = json.loads(fetch("plugin/hparams/session_groups", everything))["sessionGroups"]
    assert group["hparams"]["experiment.Experiment.batch_schedule"] == 2
    assert group["hparams"]["pix2pix.Pix2Pix.gan_loss"] == "bce"
    assert group["hparams"]["pix2pix.Pix2Pix.dropout"] is False
    named = json.loads(fetch("plugin/hparams/experiment", {"experimentName": ""}))
    assert "val/psnr_db" in [each["name"]["tag"] for each in named["metricInfos"]]


PROGRESS = """
import sys, time
import data.quiet_tensorflow  # before TensorFlow, which else writes to stderr
import tensorflow as tf
def memory(name):  # two GPUs that tell it, one device that does not
    if "GPU" not in name:
        raise ValueError("Allocator stats not available")
    return {"current": 1, "peak": {"GPU:0": 3, "GPU:1": 5}[name] * 2**30}
tf.config.experimental.get_memory_info = memory
from engine.reporting.reporter import Reporter
from engine.storage.run_directory import RunDirectory
run = RunDirectory(sys.argv[1])
run.create()
names = sys.argv[2:]
reporter = Reporter(
    run, total_examples=100, done_examples=10, examples_per_epoch=50, device_names=names
)
for examples in (20, 30, 40):
    reporter.update_progress(examples)
    time.sleep(0.2)
reporter.write_line("a line")
reporter.close()
"""


def test_a_row_has_the_memory_of_the_fullest_device(monkeypatch):
    def speed(*names):
        measured = Speed(device_names=names)
        measured.add(examples=4, steps=2, sec=1.0, wait_sec=0.0)
        return measured.read()

    assert "device_memory_bytes" not in speed("/replica:0/task:0/device:CPU:0")
    row = {"examples": 4, **LOGGED}
    assert "device" not in status_line(row, total_examples=100)
    # A CPU's memory is the host's, even where TensorFlow tells it.
    peaks = {"GPU:0": 3 * 2**30, "GPU:1": 5 * 2**30, "CPU:0": 7 * 2**30}
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"peak": peaks[name]})
    assert speed(*peaks)["device_memory_bytes"] == 5 * 2**30
    line = status_line(speed(*peaks) | row, total_examples=100)
    assert "  host 1.0 GiB, device 5.0 GiB  ETA" in line


@pytest.mark.parametrize(
    "devices, memory", [(["CPU:0", "GPU:0", "GPU:1"], " GiB, device 5.0 GiB"), ([], " GiB")]
)
def test_the_bar_on_a_terminal_and_none_in_a_file(tmp_path, devices, memory):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRESS, str(tmp_path), *devices], stdout=theirs, stderr=theirs, stdin=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 1000):
            shown += chunk
    except OSError:  # the other end was closed
        pass
    assert process.wait() == 0
    bars = shown.decode().replace("\n", "\r").split("\r")
    last = next(bar for bar in reversed(bars) if "40/100 ex" in bar)
    for words in ("epoch 0.80", "40%", " ex/s", "  host ", memory, "s left"):
        assert words in last
    assert ("device" in last) == bool(devices)
    assert "a line" in bars
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("a line\n", "")
