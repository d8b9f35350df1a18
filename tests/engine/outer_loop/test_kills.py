"""The kill soak in short; `make soak` runs 30 runs of three kills each (`kill_soak.py`)."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from engine.storage import checkpoints
from engine.storage.run_directory import append_row
from tests.helpers import killing
from tests.helpers.kill_soak import Soak, table_of
from tests.helpers.killing import ForkedProgram, differences, variables

PARAMS = (
    "BATCH_SCHEDULE = '0:1, 4:2, 12:5'",
    "TOTAL_EXAMPLES = 47",
    "DROPOUT = True",
    "LOG_EVERY = 2",
    "SAVE_EVERY = 5",
    "EVALUATE_EVERY = 20",
    "SAMPLE_EVERY = 0",
    "KEEP_CHECKPOINTS = 2",
)


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    """With the undisturbed run done."""
    directory = str(tmp_path_factory.mktemp("soak"))
    soak = Soak(directory, seed=0, params=PARAMS, make_program=ForkedProgram)
    try:
        soak.train_undisturbed()
        yield soak
    finally:
        soak.close()


def test_killed_in_a_save_at_a_boundary_and_in_an_evaluation(soak, monkeypatch):
    monkeypatch.setattr(killing, "_SAVE_SEC", 0.0)  # at the first sight of a save, not somewhere in it
    outcomes = list(soak.train_killed({0: ["save"], 1: ["boundary"], 2: ["evaluation"]}))
    for number in range(3, 7):  # a save of these networks may be over all the same
        if "in a save" not in table_of(outcomes):
            outcomes += soak.train_killed({number: ["save"]})
    assert not any(outcome.wrong for outcome in outcomes)
    assert not any("before" in place for outcome in outcomes for _, place in outcome.kills)
    assert "in a save" in table_of(outcomes)


def test_groups_of_variables_on_replicas_with_a_warm_up(tmp_path):
    """Killed while the generators warm up; frozen, slower and decayed variables, on 2 replicas."""
    params = (
        "BATCH_SCHEDULE = '0:2, 12:5'",
        "TOTAL_EXAMPLES = 37",
        "ADVERSARIAL_START = 15",  # in the step from 12 to 17
        "CPU_REPLICAS = 2",
        "LOG_EVERY = 1",
        "SAVE_EVERY = 5",
        "SAMPLE_EVERY = 0",
        "KEEP_CHECKPOINTS = 10",
    )
    gin_files = (killing.GIN_FILE, killing.GROUPS_FILE)
    soak = Soak(str(tmp_path), seed=0, params=params, gin_files=gin_files, make_program=ForkedProgram)
    try:
        course = soak.train_undisturbed()
        [outcome] = soak.train_killed({3: ["step"]})
    finally:
        soak.close()
    assert not outcome.wrong
    [(moment, _)] = outcome.kills
    assert moment.examples < 15
    positions = checkpoints.list_checkpoints(course.run.checkpoints)
    first, last = (variables(course.run.path, position) for position in (positions[0], positions[-1]))
    changed = {name for name, value in first.items() if not np.array_equal(value, last[name])}
    weights = {name for name in changed if name.startswith("network/input_to_target/")}
    assert weights == {f"network/input_to_target/{name}" for name in ("002_kernel", "003_bias")}


def test_every_difference_is_seen(soak, tmp_path):
    whole, total = soak.course.run.path, soak.course.total
    values = variables(whole, total)
    values["task/drawn"][3] += 1

    def rewrite(copy):
        tf.raw_ops.SaveV2(
            prefix=str(copy / "checkpoints" / f"{total:08d}" / "state"),
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=list(values.values()),
        )

    changes = {
        "train_log: 14 rows for 13": lambda copy: append_row(str(copy / "train.jsonl"), {"examples": total}),
        "['left.tmp'] are in one only": lambda copy: (copy / "left.tmp").write_text(""),
        f"samples/samples_{total:08d}.png differs": lambda copy: (
            copy / "samples" / f"samples_{total:08d}.png"
        ).write_bytes(b""),
        f"checkpoint {total}: 1 variables differ, such as ['task/drawn']": rewrite,
    }
    for number, (told, change) in enumerate(changes.items()):
        copy = tmp_path / str(number)
        shutil.copytree(whole, copy)
        assert differences(str(copy), whole) == []
        change(copy)
        [difference] = differences(str(copy), whole)
        assert told in difference
