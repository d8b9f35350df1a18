"""Everything in a store: prepared, trained, interrupted, evaluated and translated on ram:// alone."""

import io
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import gfile
from data.prepare import prepare
from engine.errors import ConfigurationError, RunInterruptedError
from engine.evaluate import evaluate
from engine.outer_loop.loop_calls import LoopCaller
from engine.preview import preview
from engine.storage import checkpoints, manifest
from engine.storage.atomic_files import append_text, write_text
from engine.storage.checkpoints import Snapshot
from engine.storage.run_directory import RunDirectory, append_row, read_rows
from engine.train import train
from engine.translate import translate
from models.pix2pix import Pix2Pix

VOLATILE = {"examples_per_sec", "sec_per_step", "data_wait_fraction", "host_memory_bytes", "time_unix"}
GIN = """
from __gin__ import dynamic_registration
from models import pix2pix
include 'gin/pix2pix.gin'
DATASET = "pairs"
DATA_DIR = "{root}/datasets"
LOAD_SIZE = 36
CROP_SIZE = 32
TOTAL_EXAMPLES = 12
BATCH_SCHEDULE = 2
LOG_EVERY = 2
SAVE_EVERY = 4
SAMPLE_EVERY = 12
EVALUATE_EVERY = 12
"""


def write(path, contents):
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(contents)


def png(seed, height=36, width=72):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    contents = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(contents, "png")
    return contents.getvalue()


def prepared(root):
    """Writes pictures below a root, prepares them, and gives the gin file of a run on them."""
    for split, count in (("train", 7), ("val", 2), ("test", 2)):
        for number in range(count):
            write(f"{root}/photos/{split}/{number}.png", png(100 * len(split) + number))
    write(f"{root}/photos/test/notes.txt", b"no picture")
    report = prepare(
        layout="side_by_side", source=f"{root}/photos", name="pairs", data_dir=f"{root}/datasets", readers=2
    )
    assert (report.examples, len(report.ignored)) == ({"train": 7, "val": 2, "test": 2}, 1)
    assert report.directory == f"{root}/datasets/pairs/1.0.0"
    write(f"{root}/gin/own.gin", GIN.format(root=root).encode())
    return f"{root}/gin/own.gin"


def results(root):
    """All that a run leaves, and what is made of it, as far as it does not tell the time."""
    workdir = f"{root}/run"
    reader = tf.compat.v1.train.NewCheckpointReader(f"{workdir}/checkpoints/00000012/state")
    run = RunDirectory(workdir)
    rows = [*read_rows(run.train_log), *read_rows(run.eval_log)]
    measured = evaluate(workdir=workdir, split="test")
    for number in range(2):
        write(f"{root}/inputs/deep/{number}.png", png(number, 32, 32))
    output = f"{root}/translated"
    written = translate(workdir=workdir, input=f"{root}/inputs/**/*.png", output=output, raw=True)
    assert written == [f"{output}/deep/0.png", f"{output}/deep/1.png"]
    pictures = [name for name in gfile.list_dir(f"{output}/deep") if name.endswith((".png", ".npy"))]
    assert len(pictures) == 4
    paths = [f"{output}/deep/{name}" for name in pictures]
    paths.append(f"{workdir}/samples/samples_00000012.png")
    return {
        "weights": {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()},
        "rows": [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows],
        "measured": {**measured.metrics},
        "files": {path.removeprefix(root): gfile.open_binary(path).read() for path in paths},
        # The file of a lock stays on a disk, where the system unlocks it.
        "names": [name for name in gfile.list_dir(workdir) if name not in ("tensorboard", "lock")],
        "checkpoints": checkpoints.list_checkpoints(run.checkpoints),
        "best": checkpoints.list_checkpoints(run.best),
    }


def test_a_run_in_a_store_is_one_on_a_disk_bit_for_bit(tmp_path, monkeypatch, small_pix2pix):
    monkeypatch.setattr(Pix2Pix, "networks", small_pix2pix.networks)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    disk, store = str(tmp_path / "disk"), "ram://whole/run"
    train(gin_files=[prepared(disk)], workdir=f"{disk}/run")

    gin_file, call = prepared(store), LoopCaller.call

    def interrupted(self, *args, **kwargs):
        done = call(self, *args, **kwargs)
        if done.before + done.result.steps * done.batch.global_batch == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(LoopCaller, "call", interrupted)
        with pytest.raises(RunInterruptedError, match="saved at 6 of 12"):
            train(gin_files=[gin_file], workdir=f"{store}/run")
    assert checkpoints.list_checkpoints(f"{store}/run/checkpoints") == [4, 6]
    train(gin_files=[gin_file], workdir=f"{store}/run")

    expected, found = results(disk), results(store)
    weights = expected.pop("weights")
    assert weights.keys() == found["weights"].keys()
    for name, value in found.pop("weights").items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
    # 6 was saved as the run stopped, and pushed the oldest out.
    assert (expected.pop("checkpoints"), found.pop("checkpoints")) == ([4, 8, 12], [6, 8, 12])
    assert found == expected
    assert "DONE" in found["names"] and tf.io.gfile.glob(f"{store}/run/tensorboard/events*")
    preview(gin_files=[gin_file], gin_params=(), output=f"{store}/sheets/seen.png", examples=2)
    with Image.open(gfile.open_binary(f"{store}/sheets/seen.png")) as sheet:
        assert sheet.format == "PNG"
    assert os.listdir(".") == []  # no folder "ram:"


def snapshot(examples):
    return Snapshot(examples=examples, values={"w": tf.fill([3], float(examples))})


def test_a_checkpoint_in_a_store_is_one_once_it_has_its_manifest(monkeypatch):
    directory = "ram://checkpoints/of/run"
    checkpoints.write(snapshot(4), directory, keep=2)
    monkeypatch.setattr(manifest, "write_manifest", lambda *args, **kwargs: 1 / 0)  # killed before it
    with pytest.raises(ZeroDivisionError):
        checkpoints.write(snapshot(8), directory, keep=2)
    monkeypatch.undo()
    assert gfile.list_dir(f"{directory}/00000008")
    assert checkpoints.list_checkpoints(directory) == [4] and checkpoints.newest_undamaged(directory) == 4
    checkpoints.clean_up(directory)
    assert gfile.list_dir(directory) == ["00000004"]


def test_checkpoints_in_a_store_are_replaced_and_pruned():
    directory = "ram://pruned/of/run"
    for position in (2, 4, 4, 6):
        checkpoints.write(snapshot(position), directory, keep=2)
    assert gfile.list_dir(directory) == ["00000004", "00000006"]
    write(f"{directory}/00000006/state.index", b"damaged")
    assert checkpoints.newest_undamaged(directory) == 4


def test_a_checkpoint_in_a_store_is_copied_its_manifest_last(monkeypatch):
    best, directory = "ram://copied/best", "ram://copied/checkpoints"
    for position in (4, 8):
        checkpoints.write(snapshot(position), best, keep=2)
        checkpoints.write_again(best, directory, examples=position, keep=2)
    assert checkpoints.list_checkpoints(directory) == [4, 8]
    copied, copy = [], tf.io.gfile.copy

    def stopped(source, target, **kwargs):
        copied.append(target.rpartition("/")[2])
        if copied[-1] == manifest.NAME:
            raise KeyboardInterrupt
        copy(source, target, **kwargs)

    checkpoints.write(snapshot(12), best, keep=1)
    monkeypatch.setattr(tf.io.gfile, "copy", stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write_again(best, directory, examples=12, keep=2)
    assert len(copied) == 3
    assert checkpoints.list_checkpoints(directory) == [4, 8] and checkpoints.newest_undamaged(directory) == 8


def test_texts_and_rows_in_a_store():
    write_text("ram://texts/a/note", "old")
    write_text("ram://texts/a/note", "new")
    append_text("ram://texts/a/note", "er")
    assert gfile.open_binary("ram://texts/a/note").read() == b"newer"
    for step in (1, 2):
        append_row("ram://texts/a/rows.jsonl", {"step": step})
    assert read_rows("ram://texts/a/rows.jsonl") == [{"step": 1}, {"step": 2}]
    assert gfile.list_dir("ram://texts/a") == ["note", "rows.jsonl"]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: RunDirectory("nowhere://run").create(),
        lambda: evaluate(workdir="nowhere://run"),
        lambda: read_rows("nowhere://run/train.jsonl"),
        lambda: append_text("nowhere://run/log.txt", "line"),
        lambda: write_text("nowhere://run/DONE", "{}"),
        lambda: checkpoints.write(snapshot(1), "nowhere://run/checkpoints", keep=1),
        lambda: train(gin_files=["nowhere://own.gin"], workdir="ram://w"),
        lambda: translate(workdir="ram://w", input="nowhere://pictures", output="ram://out"),
    ],
)
def test_a_store_that_is_none_is_named_in_one_line(attempt):
    with pytest.raises(ConfigurationError, match=r"nowhere://.*'nowhere' not implemented") as raised:
        attempt()
    assert "\n" not in str(raised.value)


def test_a_reason_is_given_even_where_the_store_has_none():
    write("ram://reasons/x.png", png(0))
    with pytest.raises(ConfigurationError, match=r"net_G.pth: cannot be read .NotFoundError"):
        translate(torch_checkpoint="ram://reasons/net_G.pth", input="ram://reasons/x.png", output="ram://out")
