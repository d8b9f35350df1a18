"""The program engine.events on files as resumed, rewound and damaged runs leave them."""

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import engine.events
from engine.cli import program
from engine.storage.run_directory import RunDirectory


@pytest.fixture
def events(capfd):
    """Runs the program in this process: exit code and output."""

    def run(*flags):
        values = FlagValues()
        engine.events.define_flags(values)
        rest = values(["events", *map(str, flags)])
        capfd.readouterr()
        code = program.exit_code(engine.events.main, rest, values)
        return code, capfd.readouterr()

    return run


def write_process(directory, steps, *, value, started):
    """What one process of a run writes: a scalar and a text at its start, then points at `steps`."""
    start, *rest = steps
    writer = tf.summary.create_file_writer(str(directory), filename_suffix=f".{started}.v2")
    with writer.as_default():
        tf.summary.text("config", f"process {value}", step=start)
        for step in rest:
            tf.summary.scalar("loss/gan", value, step=step)
            tf.summary.scalar("speed", 10 * value, step=step)
    writer.close()
    (path,) = directory.glob(f"*.{started}.v2")
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as file:  # two processes of a test start in one second
        for record in records:
            event = tf.compat.v1.Event.FromString(record)
            event.wall_time = float(started)
            file.write(event.SerializeToString())
    return path


def rewound(directory):
    """0 to 12 by ones, then from 4 on by twos, then from 8 on by fours: three processes of one run."""
    return [
        write_process(directory, range(0, 13), value=1.0, started=1000),
        write_process(directory, range(4, 15, 2), value=2.0, started=2000),
        write_process(directory, range(8, 21, 4), value=3.0, started=3000),
    ]


EXPECTED = [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (6, 2.0), (8, 2.0), (12, 3.0), (16, 3.0), (20, 3.0)]


def points(path, tag="loss/gan"):
    """What TensorBoard shows of a tag, read by TensorBoard itself."""
    shown = EventAccumulator(str(path), size_guidance={"tensors": 0}, purge_orphaned_data=False)
    shown.Reload()
    if tag not in shown.Tags()["tensors"]:
        return []
    return [(point.step, tf.make_ndarray(point.tensor_proto).item()) for point in shown.Tensors(tag)]


def test_three_processes_of_a_rewound_run_become_one_curve(events, tmp_path):
    rewound(tmp_path / "tensorboard")
    before = {path: path.read_bytes() for path in (tmp_path / "tensorboard").iterdir()}
    code, (said, errors) = events(f"--input={tmp_path}", f"--output={tmp_path / 'joined'}")
    assert (code, errors) == (0, "")
    assert points(tmp_path / "joined") == EXPECTED
    assert points(tmp_path / "joined", "speed") == [(step, 10 * value) for step, value in EXPECTED]
    assert points(tmp_path / "joined", "config") == [
        (s, f"process {v}".encode()) for s, v in ((0, 1.0), (4, 2.0), (8, 3.0))
    ]
    assert f"{2 * len(EXPECTED) + 3} points of 3 files" in said
    assert {path: path.read_bytes() for path in before} == before  # the inputs stay


def test_in_place_cuts_each_file_and_a_second_time_changes_nothing(events, tmp_path):
    paths = rewound(tmp_path)
    assert events(f"--input={tmp_path}", "--in_place")[0] == 0
    assert [points(path) for path in paths] == [EXPECTED[:4], EXPECTED[4:6], EXPECTED[6:]]
    kept = [path.read_bytes() for path in paths]
    assert events(f"--input={tmp_path}", "--in_place")[0] == 0
    assert [path.read_bytes() for path in paths] == kept
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_list_counts_what_is_repeated(events, tmp_path):
    rewound(tmp_path)
    code, (said, _) = events(f"--input={tmp_path}")
    rows = [line.split() for line in said.splitlines()]
    assert code == 0
    assert ["loss/gan", "scalars", "1", "20", "20", str(20 - len(EXPECTED))] in rows
    assert ["config", "text", "0", "8", "3", "0"] in rows
    code, (said, _) = events(f"--input={tmp_path}", "--tag=loss/*", "--first_step=9")
    assert [line.split() for line in said.splitlines()][-1] == ["loss/gan", "scalars", "9", "20", "10", "7"]


def test_filters_and_two_runs_as_one_curve(events, tmp_path):
    write_process(tmp_path / "a", range(0, 6), value=1.0, started=1000)
    write_process(tmp_path / "b", range(0, 4), value=2.0, started=2000)
    # The second run counted from 0 again: it goes on after step 5 of the first.
    shifted = tmp_path / "shifted"
    assert events(f"--input={tmp_path / 'b'}", f"--output={shifted}", "--shift_steps=5")[0] == 0
    inputs = [f"--input={tmp_path / 'a'}", f"--input={shifted}"]
    code, _ = events(*inputs, f"--output={tmp_path / 'joined'}", "--exclude_tag=config", "--last_step=7")
    assert code == 0
    assert points(tmp_path / "joined") == [
        (1, 1.0),
        (2, 1.0),
        (3, 1.0),
        (4, 1.0),
        (5, 1.0),
        (6, 2.0),
        (7, 2.0),
    ]
    assert points(tmp_path / "joined", "config") == []
    code, _ = events(
        *inputs, f"--output={tmp_path / 'all'}", "--overlap=all", "--tag=speed", "--first_step=5"
    )
    assert points(tmp_path / "all", "speed") == [(5, 10.0), (6, 20.0), (7, 20.0), (8, 20.0)]


def test_a_tag_that_is_described_only_once_keeps_its_description(events, tmp_path):
    """Some writers write a tag's metadata with its first point only, which a filter may drop."""
    path = tmp_path / "events.out.tfevents.1.other"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.compat.v1.Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        for step in range(3):
            event = tf.compat.v1.Event(wall_time=1.0, step=step)
            value = event.summary.value.add(tag="t", tensor=tf.make_tensor_proto(np.float32(step)))
            if step == 0:
                value.metadata.plugin_data.plugin_name = "scalars"
            writer.write(event.SerializeToString())
    assert events(f"--input={path}", "--in_place", "--first_step=1")[0] == 0
    shown = EventAccumulator(str(path)).Reload()
    assert shown.SummaryMetadata("t").plugin_data.plugin_name == "scalars"
    assert points(path, "t") == [(1, 1.0), (2, 2.0)]


def test_refusals_are_one_line_and_change_nothing(events, tmp_path):
    good = write_process(tmp_path / "run", range(0, 20), value=1.0, started=1000)
    whole = good.read_bytes()

    def refused(*flags):
        code, (said, errors) = events(*flags)
        assert (code, said) == (2, "") and errors.count("\n") == 1
        return errors

    good.write_bytes(whole[:-5])  # killed while it wrote, which is no damage
    assert events(f"--input={tmp_path / 'run'}")[0] == 0
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    good.write_bytes(damaged)
    said = refused(f"--input={tmp_path / 'run'}", "--in_place")
    assert f"{good}: is damaged after" in said and "--up_to_damage" in said
    assert good.read_bytes() == damaged
    assert events(f"--input={tmp_path / 'run'}", f"--output={tmp_path / 'saved'}", "--up_to_damage")[0] == 0
    assert 0 < len(points(tmp_path / "saved")) < 19

    picture = tmp_path / "picture.png"
    picture.write_bytes(b"no events" * 10)
    for flag in ("--in_place", "--up_to_damage"):
        assert f"{picture}: is " in refused(f"--input={picture}", "--in_place", flag)
    assert picture.read_bytes() == b"no events" * 10
    assert "holds no event files" in refused(f"--input={tmp_path / 'none'}")
    assert "no --input" in refused()
    good.write_bytes(whole)
    source = f"--input={tmp_path / 'run'}"
    assert "holds event files already" in refused(source, f"--output={tmp_path / 'run'}")
    assert "exclude each other" in refused(source, f"--output={tmp_path / 'new'}", "--in_place")
    assert "nothing is left" in refused(source, f"--output={tmp_path / 'new'}", "--tag=none")
    assert "no step is between" in refused(source, "--first_step=5", "--last_step=4")
    assert good.read_bytes() == whole


def test_files_of_a_run_that_trains_are_not_changed(events, tmp_path):
    run = RunDirectory(str(tmp_path))
    write_process(tmp_path / "tensorboard", range(0, 4), value=1.0, started=1000)
    run.write_config("")
    with run.hold_lock():
        for source in (tmp_path, tmp_path / "tensorboard"):
            code, (_, errors) = events(f"--input={source}", "--in_place", "--last_step=2")
            assert code == 2 and errors.count("\n") == 1
    assert len(points(tmp_path / "tensorboard")) == 3
    assert events(f"--input={tmp_path}", "--in_place", "--last_step=2")[0] == 0
    assert points(tmp_path / "tensorboard") == [(1, 1.0), (2, 1.0)]
