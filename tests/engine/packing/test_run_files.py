"""Which files of a run are packed, also while the run is being trained."""

import contextlib
import os
import shutil
import tarfile

import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.pack import pack, unpack
from engine.packing import archive_writer
from engine.packing.run_files import choose_files
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory
from tests.helpers.packed_runs import write_checkpoint

STATE = ("manifest.json", "state.data-00000-of-00001", "state.index")
ALWAYS = {"config.gin", "train.jsonl", "log.txt"}


def checkpoint(directory, position):
    return {f"{directory}/{position:08d}/{name}" for name in STATE}


def files_of(run, part):
    with choose_files(RunDirectory(str(run)), part=part) as chosen:
        names = [source.name for source in chosen.sources]
        assert len(names) == len(set(names))
        return set(names), chosen


@pytest.mark.parametrize(
    "part, expected",
    [
        (
            "all",
            {"DONE", "samples/samples_00000008.png", "tensorboard/events.out.tfevents.1"}
            | {"tensorboard/plugins/profile"}
            | checkpoint("checkpoints", 4)
            | checkpoint("checkpoints", 8)
            | checkpoint("best", 8),
        ),
        ("latest", {"DONE"} | checkpoint("checkpoints", 8) | checkpoint("best", 8)),
        ("best", checkpoint("checkpoints", 8) | checkpoint("best", 8)),
    ],
)
def test_parts(small_run, part, expected):
    names, chosen = files_of(small_run, part)
    assert names == ALWAYS | expected
    assert (chosen.examples, chosen.owner, chosen.left_out) == (
        8,
        None,
        [] if part == "all" else ["samples", "tensorboard"],
    )


def test_the_best_part_is_at_the_best_position(small_run):
    shutil.rmtree(small_run / "best")
    write_checkpoint(small_run / "best", 6, contents=b"best")
    names, chosen = files_of(small_run, "best")
    assert names == ALWAYS | checkpoint("best", 6) | checkpoint("checkpoints", 6)
    assert chosen.examples == 6


def test_leftovers_and_files_of_others_are_not_packed(small_run):
    leftover = f"config.gin.{'0' * 32}.tmp"
    for name in (leftover, f".writable-{'a' * 32}", "lock", f"samples/x.png.{'0' * 32}.tmp", "notes.txt"):
        (small_run / name).write_text("x")
    for name in ("checkpoints/writing-00000012", "checkpoints/removing-00000002", "best/replaced-00000008"):
        shutil.copytree(small_run / "checkpoints" / "00000004", small_run / name)
    (small_run / "report").mkdir()
    (small_run / "samples" / "elsewhere").symlink_to("/etc")  # what is behind a link is not the run's
    before = files_of(small_run, "all")[0]
    assert before == files_of(small_run, "all")[0]
    assert not [name for name in before if "tmp" in name or "-000000" in name or "elsewhere" in name]
    assert files_of(small_run, "all")[1].left_out == ["notes.txt", "report"]
    assert "notes.txt" not in before and "lock" not in before


def test_a_folder_that_is_a_link_is_packed(small_run, tmp_path):
    """Users keep checkpoints on another disk."""
    shutil.move(small_run / "checkpoints", tmp_path / "disk")
    (small_run / "checkpoints").symlink_to(tmp_path / "disk")
    assert checkpoint("checkpoints", 4) | checkpoint("checkpoints", 8) <= files_of(small_run, "all")[0]


def test_a_damaged_checkpoint_is_passed_over(small_run, caplog):
    (small_run / "checkpoints" / "00000004" / "state.index").write_bytes(b"other")
    assert not checkpoint("checkpoints", 4) & files_of(small_run, "all")[0]
    path = small_run / "checkpoints" / "00000008" / "state.index"  # shared with the best
    path.unlink()
    path.write_bytes(b"other")
    (small_run / "checkpoints" / "00000004" / "state.index").write_bytes(b"index4")
    names, chosen = files_of(small_run, "latest")
    assert chosen.examples == 4 and checkpoint("checkpoints", 4) <= names


def test_no_run_and_no_checkpoint_are_refused(packing, tmp_path, small_run):
    def refused(*flags, **named):
        code, said, errors = packing(*flags, output=tmp_path / "run.tar", **named)
        assert (code, errors.count("\n")) == (2, 1) and not (tmp_path / "run.tar").exists()
        return errors

    assert "holds no run (no config.gin)" in refused(workdir=tmp_path / "nothing")
    shutil.rmtree(small_run / "best")
    assert "use --part=latest" in refused(workdir=small_run, part="best")
    shutil.rmtree(small_run / "checkpoints")
    assert "no checkpoint; train the run further" in refused(workdir=small_run)
    write_checkpoint(small_run / "checkpoints", 4)
    (small_run / "checkpoints" / "00000004" / "state.index").write_bytes(b"other")
    assert "none of its 1 checkpoints can be read" in refused(workdir=small_run)


def test_a_run_in_training_is_packed_as_of_its_newest_checkpoint(packing, small_run, tmp_path):
    (small_run / "DONE").unlink()
    run = RunDirectory(str(small_run))
    with run.hold_lock():
        code, said, errors = packing(workdir=small_run, output=tmp_path / "run.tar")
        assert (code, errors) == (0, "")
        assert f"process {os.getpid()} on" in said and "its newest checkpoint, at 8 examples" in said
    packed = unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "copy"))
    assert packed.examples == 8
    assert os.listdir(tmp_path / "copy" / "checkpoints") == ["00000008"]
    assert not (tmp_path / "copy" / "lock").exists()


def test_training_may_remove_the_checkpoint_while_it_is_packed(small_run, tmp_path):
    run = RunDirectory(str(small_run))
    contents = (small_run / "best" / "00000008" / "state.index").read_bytes()
    with run.hold_lock(), choose_files(run, part="all") as chosen:
        shutil.rmtree(small_run / "checkpoints")
        shutil.rmtree(small_run / "best")
        write_checkpoint(small_run / "checkpoints", 12)
        archive_writer.write_archive(chosen.sources, str(tmp_path / "a.tar"), part="all", examples=8)
    unpack(archive=str(tmp_path / "a.tar"), output=str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "best" / "00000008" / "state.index").read_bytes() == contents
    assert checkpoints.newest_undamaged(str(tmp_path / "copy" / "checkpoints")) == 8


def test_a_checkpoint_that_is_removed_before_it_is_open_is_chosen_anew(small_run, monkeypatch):
    """Between the choice of the newest checkpoint and its opening, training replaces it."""
    newest, calls = checkpoints.newest_undamaged, []

    def removed_at_once(directory):
        position = newest(directory)
        calls.append(position)
        if len(calls) == 1:
            shutil.rmtree(small_run / "checkpoints" / "00000008")
            write_checkpoint(small_run / "checkpoints", 12)
        return position

    monkeypatch.setattr(checkpoints, "newest_undamaged", removed_at_once)
    with RunDirectory(str(small_run)).hold_lock():
        names, chosen = files_of(small_run, "latest")
    assert chosen.examples == 12
    assert checkpoint("checkpoints", 12) <= names and not checkpoint("checkpoints", 8) & names


def test_a_best_checkpoint_that_is_being_replaced_is_waited_for(small_run, monkeypatch):
    newest, best = checkpoints.newest_undamaged, small_run / "best" / "00000008"
    aside = best.rename(small_run / "best" / "replaced-00000008")
    calls = []

    def returns_later(directory):
        calls.append(directory)
        if len(calls) == 3:
            aside.rename(best)
        return newest(directory)

    monkeypatch.setattr(checkpoints, "newest_undamaged", returns_later)
    with RunDirectory(str(small_run)).hold_lock():
        assert checkpoint("best", 8) <= files_of(small_run, "latest")[0]
    assert len(calls) == 4


def test_it_gives_up_where_checkpoints_do_not_last(small_run, monkeypatch):
    monkeypatch.setattr(checkpoints, "newest_undamaged", lambda directory: 999)
    with pytest.raises(ConfigurationError, match="removed faster than they can be read; raise KEEP_CHECKPO"):
        files_of(small_run, "latest")


def changed_after_measuring(monkeypatch, change):
    measure = archive_writer._measure

    def measure_and_change(sources):
        files = measure(sources)
        change()
        return files

    monkeypatch.setattr(archive_writer, "_measure", measure_and_change)


def test_a_log_that_grows_is_packed_as_it_was(small_run, tmp_path, monkeypatch):
    log = small_run / "train.jsonl"
    before = log.read_bytes()
    changed_after_measuring(monkeypatch, lambda: log.write_bytes(before + b'{"examples": 12}\n'))
    pack(workdir=str(small_run), output=str(tmp_path / "a.tar"))
    unpack(archive=str(tmp_path / "a.tar"), output=str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("contents", [b"", b'{"examples": 5}\n{"examples": 8}\n', None])
def test_a_file_that_changes_otherwise_is_refused(small_run, tmp_path, monkeypatch, contents):
    log = small_run / "train.jsonl"
    changed_after_measuring(
        monkeypatch, lambda: log.unlink() if contents is None else log.write_bytes(contents)
    )
    with pytest.raises(ConfigurationError, match=r"train.jsonl: (has changed|was removed) .* again$"):
        pack(workdir=str(small_run), output=str(tmp_path / "a.tar"))
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_run_in_a_store(small_run, tmp_path):
    root = "ram://packing_store/run"
    for folder, _, files in os.walk(small_run):
        below = os.path.relpath(folder, small_run)
        target = root if below == "." else f"{root}/{below}"
        tf.io.gfile.makedirs(target)
        for name in files:
            tf.io.gfile.copy(os.path.join(folder, name), f"{target}/{name}")
    pack(workdir=root, output="ram://packing_store/run.tar")
    pack(workdir=str(small_run), output=str(tmp_path / "disk.tar"))
    with tf.io.gfile.GFile("ram://packing_store/run.tar", "rb") as file:
        assert file.read() == (tmp_path / "disk.tar").read_bytes()
    assert tf.io.gfile.listdir("ram://packing_store") in (["run", "run.tar"], ["run.tar", "run"])
    unpack(archive="ram://packing_store/run.tar", output=str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "train.jsonl").read_bytes() == (small_run / "train.jsonl").read_bytes()
    with pytest.raises(ConfigurationError, match="is not on a disk; unpack on a disk, then copy"):
        unpack(archive=str(tmp_path / "disk.tar"), output="ram://packing_store/copy")


def test_two_packs_of_one_run_are_the_same_bytes(small_run, tmp_path):
    pack(workdir=str(small_run), output=str(tmp_path / "a.tar"))
    other = tmp_path / "other" / "place"
    shutil.copytree(small_run, other)  # copied in another order, with links that are files of their own now
    for folder, _, files in os.walk(other):
        for name in files:
            os.utime(os.path.join(folder, name), (1, 1))
            os.chmod(os.path.join(folder, name), 0o600)
    with contextlib.chdir(other):
        pack(workdir=".", output=str(tmp_path / "b.tar"))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names[0] == "gantry-pack.json" and names[1:] == sorted(names[1:])
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in members} == {
        (0, 0, "", "", members[0].mtime, 0o644)
    }
    # What the best checkpoint shares with the last one is there once.
    assert checkpoint("checkpoints", 8) <= set(names) and not checkpoint("best", 8) & set(names)
