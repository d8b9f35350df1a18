"""Replicas that do not hold the same any more are found before anything is saved from them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from engine.cli import program
from engine.distribution import replica_consistency
from engine.distribution.devices import make_devices
from engine.distribution.replica_consistency import ReplicaConsistencyCheck
from engine.errors import ReplicaMismatchError
from engine.storage import checkpoints
from engine.storage.run_directory import read_rows


def flip_a_bit(copy, *, bit=0, place=0):
    """Changes one bit of one element of one replica's copy."""
    value = copy.numpy().copy()
    words = value.reshape(-1).view(f"u{value.dtype.itemsize}")
    words[place] ^= words.dtype.type(1 << bit)
    copy.assign(value)


@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int64", "int32", "bool"])
def test_one_bit_on_one_replica(replicas, dtype):
    devices = make_devices("mirrored", cpu_replicas=replicas)
    with devices.strategy.scope():
        shape = [] if dtype == "bool" else [3, 5]
        numbers = np.random.default_rng(0).normal(0, 3, shape)
        initial = tf.cast(numbers, dtype)
        variables = {"first": tf.Variable(initial), "second": tf.Variable(initial, name="second")}
    check = ReplicaConsistencyCheck(devices, variables)
    check.run(examples=0, saved_at=None)
    copy = variables["second"].values[1]
    bits = [0] if dtype == "bool" else range(0, 8 * copy.dtype.size, 5)
    for bit in bits:
        place = 0 if dtype == "bool" else bit % 15
        if dtype == "bool":
            copy.assign(not bool(copy.numpy()))
        else:
            flip_a_bit(copy, bit=bit, place=place)
        expected = "replica 1 differs from the others in" if replicas == 3 else "replicas 0, 1 differ in"
        with pytest.raises(ReplicaMismatchError, match=f"at 7 examples: {expected} second; no checkpoint"):
            check.run(examples=7, saved_at=None)
        variables["second"].assign(variables["second"].values[0].numpy())
        check.run(examples=8, saved_at=None)  # also: traced once, it reads the values of now


def test_changes_that_simple_sums_do_not_see():
    def of(values):
        return int(replica_consistency._sum_of_bits(tf.constant(values, tf.float32)))

    different = [[1, 2, 3, 4], [2, 1, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4, 0], [0, 1, 2, 3, 4]]
    # 0 is not -0, and zeros that moved in between places are no change.
    different += [[0.0], [-0.0], [np.nan], [np.inf]]
    sums = [of(values) for values in different]
    sums[3] = None  # a zero more at the end, which a variable cannot get
    assert len(set(sums)) == len(sums)
    # Words that differ by 1, -2, 1 in a row keep the sum, and the sum weighted by place.
    words = np.array([[1000, 1000, 1000], [1001, 998, 1001]], np.int32).view(np.float32)
    assert of(words[0]) != of(words[1])


def test_a_run_ends_before_it_saves(make_trainer, noise_pairs, small_pix2pix):
    """Compared every 6 examples and at checkpoints, every 4; a bit flips after 10, and again later."""
    trainer = make_trainer(
        small_pix2pix(dropout=False),
        noise_pairs(size=16, train_examples=6),
        cpu_replicas=3,
        total_examples=20,
        batch_schedule=2,
        save_every=4,
        sample_every=0,
        check_replicas_every="1ep",
    )
    check, checked = trainer._replica_check, []
    compare, step = check.run, trainer.loop.run
    name, variable = next(item for item in trainer.state.variables().items() if item[0].endswith("/m"))

    def compare_and_note(**kwargs):
        checked.append(kwargs["examples"])
        compare(**kwargs)

    def step_then_flip(*args, **kwargs):
        result = step(*args, **kwargs)
        if kwargs["examples"] == 8:
            flip_a_bit(variable.values[2], bit=3, place=1)
        return result

    check.run, trainer.loop.run = compare_and_note, step_then_flip
    with pytest.raises(ReplicaMismatchError) as caught:
        trainer.run()
    # Nothing differed before: moving statistics, moments and positions are compared, too.
    assert checked == [4, 6, 8, 12]
    assert {name.split("/")[0] for name in check._variables} >= {"network", "optimizer", "step", "decision"}
    assert f"at 12 examples: replica 2 differs from the others in {name}" in str(caught.value)
    assert "the checkpoint at 8 examples was saved before that" in str(caught.value)
    assert checkpoints.list_checkpoints(trainer.run_directory.checkpoints) == [4, 8]
    assert read_rows(trainer.run_directory.train_log)[-1]["examples"] == 10  # no row of what is damaged
    # A checkpoint between two checks, such as that of a run that is stopped, is not written either.
    trainer.restore()
    flip_a_bit(variable.values[0])
    with pytest.raises(ReplicaMismatchError, match="at 8 examples: replica 0 differs"):
        trainer._make_actions(None, None).save()
    assert checkpoints.list_checkpoints(trainer.run_directory.checkpoints) == [4, 8]


@pytest.mark.parametrize(("replicas", "every"), [(2, 0), (1, 4)])
def test_off_unless_asked_for_and_possible(make_trainer, noise_pairs, small_pix2pix, replicas, every):
    trainer = make_trainer(
        small_pix2pix(),
        noise_pairs(size=16),
        total_examples=4,
        cpu_replicas=replicas,
        check_replicas_every=every,
    )
    assert trainer._replica_check is None


def test_exit_code_3(capsys):
    def differ(_):
        raise ReplicaMismatchError("step", replicas=(1,), others=2, examples=9, saved_at=None)

    assert program.exit_code(differ, ["train"], None) == 3
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "replica 1 differs from the others in step (and in 2 more)" in errors


@pytest.mark.soak
def test_several_workers():
    text = """
import json, os
import data.quiet_tensorflow
import tensorflow as tf
from engine.distribution.devices import make_devices
from engine.distribution.replica_consistency import ReplicaConsistencyCheck
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
devices = make_devices("auto")
with devices.strategy.scope():
    variables = {name: tf.Variable([1.0, 2.0], name=name) for name in ("a", "b")}
check = ReplicaConsistencyCheck(devices, variables)
check.run(examples=0, saved_at=None)
if index == 1:
    variables["b"].values[0].assign([1.0, 2.0000002])
try:
    check.run(examples=5, saved_at=3)
except RuntimeError as error:
    print(str(error).split(".")[0])
"""
    done = subprocess.run(
        [sys.executable, "-m", "engine.launch", "--workers=2", "--", sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    told = "replicas differ at 5 examples: replicas 0, 1 differ in b; the checkpoint at 3 examples is from "
    told += "before it"
    assert sorted(done.stdout.splitlines()) == [f"[worker {n}] {told}" for n in range(2)]
