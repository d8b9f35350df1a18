"""Checkpoints against damage, kills at any moment, full disks; and written while the state moves on."""

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from data import gfile
from engine.errors import ConfigurationError
from engine.storage import checkpoints, manifest
from engine.storage.async_checkpointer import AsyncCheckpointer
from engine.storage.run_directory import append_row, read_rows


def values_at(position):
    generator = np.random.default_rng(position)
    return {
        "examples": np.int64(position),
        "network/a/kernel": generator.normal(size=(3, 3, 2, 4)).astype(np.float32),
        "optimizer/a/m": generator.normal(size=(40,)),
        "decision/x": np.float64(generator.normal()),
    }


def snapshot_at(position):
    values = {name: tf.constant(value) for name, value in values_at(position).items()}
    return checkpoints.Snapshot(examples=position, values=values)


def blank_state():
    """Stands for a `TrainState`: variables by name."""
    variables = {name: tf.Variable(np.zeros_like(value)) for name, value in values_at(0).items()}
    return SimpleNamespace(variables=lambda: variables)


def assert_state_at(state, position):
    for name, value in values_at(position).items():
        np.testing.assert_array_equal(state.variables()[name].numpy(), value, err_msg=name)


def save_at(directory, *saved, keep=3):
    for position in saved:
        checkpoints.write(snapshot_at(position), str(directory), keep=keep)


def damage(path, kind, place):
    """Damages a file at a relative place in [0, 1)."""
    size = os.path.getsize(path)
    at = int(place * size)
    if kind == "deleted":
        os.remove(path)
        return
    with open(path, "r+b") as file:
        if kind == "truncated":
            file.truncate(at)
        elif kind == "emptied":
            file.truncate(0)
        elif kind == "extended":
            file.seek(0, os.SEEK_END)
            file.write(b"\0")
        else:
            file.seek(at)
            old = file.read(1)[0]
            file.seek(at)
            file.write(bytes([old ^ (1 << int(8 * place * 997) % 8)]))


def test_a_hundred_damages_are_all_found(tmp_path, caplog):
    """Each is restored from the checkpoint before it with a warning; refused by name if both are damaged."""
    whole, directory = tmp_path / "whole", tmp_path / "damaged"
    save_at(whole, 4, 8)
    files = sorted(os.listdir(whole / "00000008"))
    assert files == ["manifest.json", "state.data-00000-of-00001", "state.index"]
    kinds = ["flipped", "flipped", "truncated", "emptied", "deleted", "extended"]
    draw = random.Random(0)
    for number in range(100):
        shutil.copytree(whole, directory)
        kind, name = kinds[number % len(kinds)], files[number // len(kinds) % len(files)]
        # Heads and ends of files are always among the places.
        place = (0.0, 0.9999)[number // 6 % 2] if number < 36 else draw.random()
        both = number % 10 == 9
        for position in (4, 8) if both else (8,):
            damage(directory / f"{position:08d}" / name, kind, place)
        state = blank_state()
        caplog.clear()
        if both:
            with pytest.raises(ConfigurationError, match=f"none of its 2 checkpoints.*{name}"):
                checkpoints.restore_latest(state, str(directory))
            assert int(state.variables()["examples"]) == 0
        else:
            assert checkpoints.restore_latest(state, str(directory)) == 4, (number, kind, name)
            assert_state_at(state, 4)
            assert caplog.text.count("is damaged") == 1 + (f"({name} is damaged" in caplog.text)
            assert f"00000008 is damaged ({name}" in caplog.text
        with pytest.raises(ConfigurationError, match=f"00000008: damaged.*{name}"):
            checkpoints.restore(state, str(directory), 8)
        shutil.rmtree(directory)


@pytest.mark.parametrize("root", ["", "ram://odd_names"])
@pytest.mark.parametrize(
    "name", ["a [copy]", "a\\b", "*", "?", "[", "'q' \"d\"", "100%", "e\u0301 \u00e9", "a\nb", "-x", "x. "]
)
def test_a_checkpoint_lies_in_a_directory_of_any_name(tmp_path, root, name):
    directory = f"{root or tmp_path}/{name}"
    save_at(directory, 2, 4)
    assert checkpoints.list_checkpoints(directory) == [2, 4]
    for position in (2, 4):
        state = blank_state()
        checkpoints.restore(state, directory, position)
        assert_state_at(state, position)


def test_a_checkpoint_under_another_position_is_refused(tmp_path):
    save_at(tmp_path, 4)
    os.rename(tmp_path / "00000004", tmp_path / "00000005")
    with pytest.raises(ConfigurationError, match="that of another checkpoint, at 4 examples"):
        checkpoints.restore_latest(blank_state(), str(tmp_path))


def test_pruning_counts_only_undamaged_checkpoints(tmp_path):
    save_at(tmp_path, 4, 8, 12, keep=3)
    damage(tmp_path / "00000012" / "state.index", "truncated", 0.5)
    save_at(tmp_path, 10, keep=2)  # as after going back to 8
    assert checkpoints.list_checkpoints(str(tmp_path)) == [8, 10, 12]
    assert checkpoints.newest_undamaged(str(tmp_path)) == 10
    save_at(tmp_path, 12, keep=2)
    assert checkpoints.list_checkpoints(str(tmp_path)) == [10, 12]
    assert checkpoints.newest_undamaged(str(tmp_path)) == 12


class Killed(BaseException):
    """Not an error that anything catches: what is done so far stays as it is."""


@pytest.mark.parametrize("rewritten", [False, True])
def test_stopped_before_any_operation_of_a_save_nothing_is_lost(tmp_path, monkeypatch, rewritten):
    """Every operation on files is the last one before the process ends, in turn."""
    operations = [(tf.io.gfile, name) for name in ("rename", "rmtree", "makedirs")]
    operations += [(gfile, "list_dir"), (manifest, "fsync"), (checkpoints, "fsync"), (tf.raw_ops, "SaveV2")]
    left = [0]

    def counted(operation):
        def run(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return operation(*args, **kwargs)

        return run

    for last in range(1, 100):
        directory = tmp_path / str(last)
        save_at(directory, 4, 8)
        if rewritten:  # 8 is undamaged, but has other values; as after --allow_config_change
            other = checkpoints.Snapshot(
                examples=8, values=snapshot_at(8).values | {"decision/x": tf.constant(7.0, tf.float64)}
            )
        left[0] = last
        with monkeypatch.context() as patch:
            for module, name in operations:
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                if rewritten:
                    checkpoints.write(other, str(directory), keep=1)
                else:
                    save_at(directory, 12, keep=1)
                break
            except Killed:
                pass
        checkpoints.clean_up(str(directory))  # what a run that starts again does
        newest = checkpoints.newest_undamaged(str(directory))
        assert newest == 8 if rewritten else newest in (8, 12)
        state = blank_state()
        checkpoints.restore(state, str(directory), newest)
        if not rewritten:
            assert_state_at(state, newest)
        save_at(directory, 16, keep=1)
        assert os.listdir(directory) == ["00000016"]
    assert 12 < last < 60
    assert os.listdir(directory) == ["00000008" if rewritten else "00000012"]


def inodes(directory):
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


def refuse_links(*paths):
    raise PermissionError(1, "Operation not permitted")  # as on FAT


@pytest.mark.parametrize("links", [True, False], ids=["links", "no_links"])
def test_a_checkpoint_of_two_directories_is_written_once(tmp_path, monkeypatch, links):
    """Each stays whole when the other is removed or replaced, whether they share files or not."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    best, directory = tmp_path / "best", tmp_path / "checkpoints"
    save_at(directory, 4)
    save_at(best, 8, keep=1)
    for _ in range(2):  # the second time it replaces the first
        checkpoints.write_again(str(best), str(directory), examples=8, keep=2)
        assert sorted(os.listdir(directory)) == ["00000004", "00000008"]
        shared = inodes(best / "00000008").items() & inodes(directory / "00000008").items()
        assert len(shared) == (3 if links else 0)
    save_at(best, 12, keep=1)
    assert checkpoints.newest_undamaged(str(directory)) == 8
    save_at(directory, 16, 20, keep=2)
    checkpoints.write_again(str(best), str(directory), examples=12, keep=5)
    shutil.rmtree(directory / "00000012")
    for where, position in ((best, 12), (directory, 20)):
        state = blank_state()
        assert checkpoints.restore_latest(state, str(where)) == position
        assert_state_at(state, position)
    damage(best / "00000012" / "state.index", "flipped", 0.5)
    with pytest.raises(ConfigurationError, match=r"00000012: cannot be written \(state.index is damaged.*; "):
        checkpoints.write_again(str(best), str(directory), examples=12, keep=1)
    assert sorted(os.listdir(directory)) == ["00000016", "00000020"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no_links"])
def test_stopped_before_any_operation_of_a_second_path_nothing_is_lost(tmp_path, monkeypatch, links):
    operations = [(tf.io.gfile, name) for name in ("rename", "rmtree", "makedirs", "copy")]
    operations += [(gfile, "list_dir"), (manifest, "fsync"), (checkpoints, "fsync"), (os, "link")]
    left = [0]

    def counted(operation):
        def run(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return operation(*args, **kwargs)

        return run

    for last in range(1, 100):
        best, directory = tmp_path / f"best{last}", tmp_path / str(last)
        save_at(directory, 4)
        save_at(best, 8)
        left[0] = last
        with monkeypatch.context() as patch:
            if not links:
                patch.setattr(os, "link", refuse_links)
            for module, name in operations:
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                checkpoints.write_again(str(best), str(directory), examples=8, keep=1)
                break
            except Killed:
                pass
        checkpoints.clean_up(str(directory))
        for where, expected in ((best, (8,)), (directory, (4, 8))):
            state = blank_state()
            newest = checkpoints.restore_latest(state, str(where))
            assert newest in expected
            assert_state_at(state, newest)
    assert 8 < last < 60
    assert os.listdir(directory) == ["00000008"]


KEEP_SAVING = """
import os, signal, sys, time
import tensorflow as tf
from engine.storage import checkpoints

for line in sys.stdin:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        checkpoints.clean_up(sys.argv[1])
        position = checkpoints.newest_undamaged(sys.argv[1]) or 0
        while True:
            position += 1
            filled = tf.fill([100_000], float(position))
            values = {"examples": tf.constant(position, tf.int64), "filled": filled}
            checkpoints.write(checkpoints.Snapshot(examples=position, values=values), sys.argv[1], keep=2)
            os.write(writer, f"{position}\\n".encode())
    os.close(writer)
    told = os.read(reader, 1000)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 1000):
        told += more
    os.close(reader)
    print(told.split()[-1].decode(), flush=True)
"""


def test_killed_at_random_moments_of_saving_a_run_starts_again(tmp_path):
    directory = str(tmp_path / "checkpoints")
    process = subprocess.Popen(
        [sys.executable, "-c", KEEP_SAVING, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    draw, reached = random.Random(1), 0
    for _ in range(10):
        process.stdin.write(f"{draw.uniform(0, 0.04)}\n")
        process.stdin.flush()
        told = int(process.stdout.readline())
        newest = checkpoints.newest_undamaged(directory)
        assert newest in (told, told + 1) and newest > reached
        reader = tf.train.load_checkpoint(f"{directory}/{newest:08d}/state")
        assert int(reader.get_tensor("examples")) == newest
        assert (reader.get_tensor("filled") == newest).all()
        reached = newest
    process.stdin.close()
    assert process.wait() == 0


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path):
    """The operating system refuses larger files, as a full disk would."""
    save_at(tmp_path, 4)
    path, row = str(tmp_path / "rows.jsonl"), {"examples": 4, "text": "x" * 500}
    append_row(path, row)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(
            ConfigurationError, match=r"00000008: cannot be written .*too large.*; make room"
        ) as e:
            save_at(tmp_path, 8)
        with pytest.raises(ConfigurationError, match=r"rows.jsonl: cannot be written"):
            append_row(path, row)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(e.value)
    assert sorted(os.listdir(tmp_path)) == ["00000004", "rows.jsonl"]
    assert checkpoints.newest_undamaged(str(tmp_path)) == 4
    # The row that was written in part is no row, and the next one does not continue it.
    with open(path) as file:
        assert not file.read().endswith("\n")
    assert read_rows(path) == [row]
    append_row(path, {"examples": 5})
    assert read_rows(path) == [row, {"examples": 5}]


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ConfigurationError, match="checkpoints/00000004: cannot be written"):
        save_at(tmp_path / "checkpoints", 4)


def adam_in_place(variable):
    """As the optimizers do it."""
    moments = [tf.Variable(tf.zeros_like(variable)) for _ in range(2)]
    numbers = {"beta1_power": 0.5, "beta2_power": 0.9, "lr": 1.0, "beta1": 0.5, "beta2": 0.9, "epsilon": 1e-8}
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=moments[0].handle,
        v=moments[1].handle,
        grad=tf.ones_like(variable),
        **numbers,
    )


def test_what_is_written_in_the_background_is_of_one_instant(tmp_path, monkeypatch):
    """Every variable is changed in place while the write is held up; a second save waits for it."""
    state, released, write = blank_state(), threading.Event(), checkpoints.write
    for name, value in values_at(4).items():
        state.variables()[name].assign(value)

    def held_up(*args, **kwargs):
        assert released.wait(30)
        write(*args, **kwargs)

    monkeypatch.setattr(checkpoints, "write", held_up)
    saver = AsyncCheckpointer(is_chief=True)
    began = time.monotonic()
    saver.save(state, str(tmp_path), keep=2)
    for variable in state.variables().values():
        variable.assign_add(tf.ones_like(variable))
    adam_in_place(state.variables()["network/a/kernel"])
    saver.check()  # does not wait
    assert time.monotonic() - began < 20 and checkpoints.list_checkpoints(str(tmp_path)) == []
    state.variables()["examples"].assign(8)
    second = threading.Thread(target=saver.save, args=(state, str(tmp_path)), kwargs={"keep": 2})
    second.start()
    assert second.is_alive()
    released.set()
    second.join()
    saver.wait()
    assert checkpoints.list_checkpoints(str(tmp_path)) == [4, 8]
    restored = blank_state()
    checkpoints.restore(restored, str(tmp_path), 4)
    assert_state_at(restored, 4)
    saver.close()


def test_an_error_in_the_background_surfaces_at_the_next_look(tmp_path):
    (tmp_path / "file").write_text("")
    saver = AsyncCheckpointer(is_chief=True)
    saver.save(blank_state(), str(tmp_path / "file"), keep=1)
    with pytest.raises(ConfigurationError, match="file/00000000: cannot be written"):
        while True:
            saver.check()
            time.sleep(0.01)
    saver.check()  # said once
    saver.close()
