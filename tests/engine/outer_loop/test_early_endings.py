"""How a run ends early, or goes on: numbers that are not finite, time limits, signals, failing saves."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import engine.outer_loop.loop_calls
import engine.outer_loop.trainer
from engine.cli import program
from engine.durations import seconds_of
from engine.errors import ConfigurationError, DivergenceError, RunInterruptedError
from engine.experiment import Experiment
from engine.outer_loop.run_actions import RunActions
from engine.outer_loop.trainer import Trainer
from engine.outer_loop.wall_time import WallTime
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory, read_rows
from engine.task import Adam, Phase, Task
from models.networks.layers import image_input
from models.networks.norms import normalise


class TwoPhases(Task):
    """One network learns the targets, one the inputs; the mean target is kept in the task's state."""

    optimizers = {"adam": Adam(learning_rate=0.01)}

    def networks(self, example):
        def network(name):
            image = image_input(3)
            x = normalise(image, "batch", name="norm")
            x = keras.layers.Conv2D(3, 1, kernel_initializer="ones", name="conv")(x)
            return keras.Model(image, x, name=name)

        return {"target": network("target"), "input": network("input")}

    def state(self, example):
        return {"mean": tf.Variable(0.0, dtype=keras.config.floatx(), trainable=False)}

    def phases(self):
        return tuple(
            Phase(name=f"{n}_phase", loss=getattr(self, n), updates=(n,), optimizer="adam")
            for n in ("target", "input")
        )

    def target(self, step):
        mean = tf.reduce_mean(step.gather(step.batch["target"]))
        step.state["mean"].assign(0.5 * step.state["mean"].read_value() + 0.5 * mean)
        return self._l1(step, "target")

    def input(self, step):
        return self._l1(step, "input")

    def _l1(self, step, role):
        output = step.networks[role](step.batch[role] + step.batch["delay"], training=True)
        return {"l1": tf.reduce_mean(tf.abs(output - 0.5), axis=[1, 2, 3])}

    def translate(self, networks, batch):
        return networks["target"](batch["input"], training=False)


@pytest.fixture
def pairs(noise_pairs):
    """Training data in which the targets (or inputs too) of some examples are not numbers."""

    class Pairs(noise_pairs):
        bad = ()
        bad_role = "target"
        slow_from = None

        def example(self, index):
            example = super().example(index)
            is_bad = tf.reduce_any(tf.cast(index, tf.int64) == tf.constant(self.bad, tf.int64))
            for role in ("target", "input") if self.bad_role == "both" else (self.bad_role,):
                example[role] += tf.where(is_bad, np.nan, 0.0)
            delay = 0.0
            if self.slow_from is not None:
                delay = tf.py_function(self._wait, [index], tf.float32)
                delay.set_shape([])
            return example | {"delay": tf.reshape(delay, [1, 1, 1])}

        def _wait(self, index):
            time.sleep(0.1 if self.slow_from <= int(index) < 1000 else 0.0)
            return 0.0

    def make(**attributes):
        data = Pairs(size=12, train_examples=1000)
        for name, value in attributes.items():
            object.__setattr__(data, name, value)
        return data

    return make


def values(trainer):
    return {name: variable.numpy() for name, variable in trainer.state.variables().items()}


SETTINGS = {"precision": "float64", "batch_schedule": 2, "sample_every": 0, "save_every": 0}


@pytest.mark.parametrize("largest_micro_batch", [None, 1])
def test_skipping_leaves_the_phase_out_and_undoes_what_the_step_moved(
    make_trainer, pairs, largest_micro_batch
):
    """Examples 4 and 5 make a bad batch; on two replicas only one of them sees it."""
    settings = SETTINGS | {"on_non_finite": "skip", "largest_micro_batch": largest_micro_batch}
    runs = []
    for replicas, total in ((1, 4), (1, 6), (1, 10), (2, 10))[: 2 if largest_micro_batch else 4]:
        trainer = make_trainer(
            TwoPhases(), pairs(bad=(5,)), cpu_replicas=replicas, total_examples=total, **settings
        )
        if total == 10 and replicas == 1:  # goes on from the checkpoint right after the bad batch
            trainer.run_directory = runs[1].run_directory
            trainer.restore()
        trainer.run()
        runs.append(trainer)
    before, after = values(runs[0]), values(runs[1])
    for name, value in before.items():
        if name == "task/mean" or name.startswith(("network/target", "optimizer/adam/target")):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        elif name.startswith("network/input") and "moving" not in name:
            assert (after[name] != value).any(), name
        elif "moving" in name:
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert after["step"] == 3 and after["decision/non_finite/skipped"] == 1
    rows = read_rows(runs[1].run_directory.train_log)
    assert rows[2]["loss/target_phase/l1"] is None and rows[2]["loss/input_phase/l1"] is not None
    assert [row["skipped_steps"] for row in rows][:3] == [0, 0, 1]
    with open(runs[1].run_directory.console_log) as file:
        expected = (
            "step 3: loss/target_phase/l1, grad_norm/target_phase not finite: skipped; 1 such steps so far"
        )
        assert expected in file.read()
    if largest_micro_batch is None:
        one, two = values(runs[2]), values(runs[3])
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=0, atol=1e-8, err_msg=name)
    assert all(np.isfinite(value).all() for name, value in values(runs[-1]).items() if name != "best")


def test_skipping_too_often_in_a_row_diverges(make_trainer, pairs):
    trainer = make_trainer(
        TwoPhases(),
        pairs(bad=tuple(range(4, 100)), bad_role="both"),
        total_examples=100,
        on_non_finite="skip",
        **SETTINGS,
    )
    with pytest.raises(DivergenceError, match="step 13: .*in more than 10 steps in a row; no checkpoint"):
        trainer.run()
    weights = values(trainer)
    assert all(np.isfinite(value).all() for name, value in weights.items() if name != "best")


def test_restoring_goes_on_after_the_bad_batch_with_the_weights_of_the_last_checkpoint(make_trainer, pairs):
    settings = SETTINGS | {"save_every": 4, "keep_checkpoints": 9, "total_examples": 12}
    bad = pairs(bad=(6,), bad_role="both")
    trainer = make_trainer(TwoPhases(), bad, on_non_finite="restore", **settings)
    trainer.run()
    assert values(trainer)["decision/non_finite/restored"] == 1
    assert [row["examples"] for row in read_rows(trainer.run_directory.train_log)] == [2, 4, 6, 8, 10, 12]
    # The same by hand: the weights of 4 examples at position 8, then the rest.
    by_hand = make_trainer(TwoPhases(), bad, **settings)
    checkpoints.restore(by_hand.state, trainer.run_directory.checkpoints, 4)
    by_hand.state.examples.assign(8)
    by_hand.state.step.assign(4)
    by_hand.run()
    for name, value in values(by_hand).items():
        if name != "decision/non_finite/restored" and name != "best":
            np.testing.assert_array_equal(values(trainer)[name], value, err_msg=name)


def test_restoring_too_often_diverges_and_without_a_checkpoint_at_once(make_trainer, pairs, tmp_path):
    bad = pairs(bad=tuple(range(6, 100)))
    settings = SETTINGS | {"total_examples": 100, "on_non_finite": "restore"}
    trainer = make_trainer(TwoPhases(), bad, **settings | {"save_every": 4})
    with pytest.raises(
        DivergenceError, match="step 7: .*again after 3 returns to a checkpoint; the checkpoint at 12"
    ):
        trainer.run()
    again = Trainer(dataclasses.replace(trainer.experiment, save_every=0), RunDirectory(str(tmp_path)))
    with pytest.raises(DivergenceError, match="step 4: .* not finite; no checkpoint was written yet"):
        again.run()


def test_unknown_policy_and_times_are_refused(noise_pairs):
    settings = {"task": TwoPhases(), "data": noise_pairs(), "total_examples": 1}
    with pytest.raises(ConfigurationError, match="on_non_finite = 'ignore'.*skip"):
        Experiment(on_non_finite="ignore", **settings)
    for wrong in ("8", "8h30", "0s", "", "h", "1.5h"):
        with pytest.raises(ConfigurationError, match="max_wall_time = .*'8h30m'"):
            Experiment(max_wall_time=wrong, **settings)
    assert [seconds_of(t, name="") for t in ("8h30m", "2d", "90m", "1d1h1m1s")] == [
        30600,
        172800,
        5400,
        90061,
    ]


def test_wall_time_counts_what_is_to_come():
    limit = WallTime("100s", age_sec=80.0)  # the margin is 5 s
    assert not limit.is_nearly_over([], loop_sec=5.0, save_sec=4.5)  # 99 s
    assert limit.is_nearly_over([], loop_sec=5.0, save_sec=5.5)
    with limit.measure("evaluation"):
        time.sleep(0.3)
    assert limit.is_nearly_over(["evaluation"] * 4, loop_sec=5.0, save_sec=4.5)
    assert not limit.is_nearly_over(["sampling"] * 4, loop_sec=5.0, save_sec=4.5)
    assert not WallTime(None).is_nearly_over([], loop_sec=1e9, save_sec=0.0)
    with pytest.raises(ConfigurationError, match="over before the first step"):
        WallTime("100s", age_sec=101.0).check_start()


def test_run_saves_and_stops_before_its_wall_time(make_trainer, pairs, monkeypatch):
    monkeypatch.setattr(engine.outer_loop.trainer, "WallTime", lambda limit: WallTime(limit, age_sec=53.0))
    settings = SETTINGS | {"total_examples": 10_000_000, "max_wall_time": "60s", "log_every": 0}
    trainer = make_trainer(TwoPhases(), pairs(), **settings)
    began = time.monotonic()
    with pytest.raises(RunInterruptedError, match="max_wall_time = '60s' is nearly over: saved at"):
        trainer.run()
    assert time.monotonic() - began < 30
    saved = checkpoints.list_checkpoints(trainer.run_directory.checkpoints)
    assert saved == [trainer.examples] and 0 < saved[0] < 10_000_000


def test_steps_that_become_slow_do_not_keep_a_signal_waiting(make_trainer, pairs, monkeypatch):
    """The length of a call of the loop is bounded by the clock, not only by how long steps took before."""
    monkeypatch.setattr(engine.outer_loop.loop_calls, "LOOP_SEC", 0.3)
    settings = SETTINGS | {"total_examples": 50, "batch_schedule": 1, "log_every": 0}
    trainer = make_trainer(TwoPhases(), pairs(slow_from=20), **settings)
    run, took = trainer.loop.run, []

    def timed(*args, **kwargs):
        began = time.monotonic()
        result = run(*args, **kwargs)
        took.append((time.monotonic() - began, result.steps))
        return result

    trainer.loop.run = timed
    trainer.run()
    # Reading ahead spreads the waits; the first call compiles.
    assert sum(steps for _, steps in took) == 50
    assert len(took) > 5 and max(sec for sec, _ in took[1:]) < 1.5


def test_failing_save_ends_the_run_and_keeps_what_was_saved(make_trainer, pairs, monkeypatch):
    settings = SETTINGS | {"total_examples": 8, "save_every": 4}
    trainer = make_trainer(TwoPhases(), pairs(), **settings)
    save, calls = tf.raw_ops.SaveV2, []

    def full(**kwargs):
        calls.append(kwargs)
        if len(calls) > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")
        return save(**kwargs)

    monkeypatch.setattr(tf.raw_ops, "SaveV2", full)
    with pytest.raises(ConfigurationError, match="00000008: cannot be written .No space left.*make room"):
        trainer.run()
    monkeypatch.undo()
    assert checkpoints.list_checkpoints(trainer.run_directory.checkpoints) == [4]
    assert not os.path.exists(trainer.run_directory.done)
    again = make_trainer(TwoPhases(), pairs(), workdir=trainer.run_directory.path, **settings)
    assert again.restore() == 4
    again.run()
    assert [row["examples"] for row in read_rows(again.run_directory.train_log)] == [2, 4, 6, 8]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_imports_is_one_line(number):
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.train", "--workdir=nowhere"], stderr=subprocess.PIPE, text=True
    )
    while "libtensorflow" not in open(f"/proc/{process.pid}/maps").read():
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (42, 1), errors
    assert "stopped without saving" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_set_up_is_one_line(number, capfd):
    def main(values):
        os.kill(os.getpid(), number)
        time.sleep(10)

    previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert program._interruptible(main, ["program"], takes_arguments=False) == 42
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1 and "stopped without saving" in errors


HANGS_UP = """
import fcntl, itertools, signal, sys, termios, time
ignored, folder = sys.argv[1] == "ignored", sys.argv[2]
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
from engine.outer_loop.preemption import PreemptionHandler
from engine.reporting.reporter import Reporter
from engine.storage.run_directory import RunDirectory
run = RunDirectory(folder)
run.create()
with PreemptionHandler() as preemption:
    reporter = Reporter(run, total_examples=100, done_examples=0)
    reporter.write_line("training")
    deadline = time.monotonic() + 20
    for examples in itertools.count(1):
        time.sleep(0.1)
        reporter.update_progress(examples)
        if preemption.stop_reason or not sys.stdin.isatty() or time.monotonic() > deadline:
            break
    reporter.write_line(f"stopped: {preemption.stop_reason}")
    reporter.close()
print("the end", flush=True)
print("the end", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("how, reason", [("default", "SIGHUP"), ("ignored", "None")])
def test_a_terminal_that_closes(tmp_path, how, reason):
    """A lost connection stops a run as SIGTERM does; under nohup the run goes on without the terminal."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS_UP, how, str(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"training" not in said:
        said += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(timeout=60) == 0, said
    assert f"stopped: {reason}" in (tmp_path / "log.txt").read_text()


def test_a_run_that_is_shortened_below_its_position_ends_there(make_trainer, pairs, tmp_path, monkeypatch):
    def run(total):
        settings = SETTINGS | {"total_examples": total, "sample_every": 0}
        trainer = make_trainer(TwoPhases(), pairs(), workdir=str(tmp_path), **settings)
        trainer.restore()
        trainer.run()

    log = RunActions.log

    def log_and_stop(actions):
        log(actions)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunActions, "log", log_and_stop)
        with pytest.raises(RunInterruptedError):
            run(1000)
    files = RunDirectory(str(tmp_path))
    position = read_rows(files.train_log)[-1]["examples"]
    assert position > 1 and not read_rows(files.eval_log) and not os.path.exists(files.samples)
    for _ in range(2):  # the second time it is complete
        run(1)
        assert [row["examples"] for row in read_rows(files.eval_log)] == [position]
        assert os.listdir(files.samples) == [f"samples_{position:08d}.png"]
        assert os.path.exists(files.done)
