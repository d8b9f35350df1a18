"""A run says what it waits for: a stalled input, a step that hangs, or the compilation of the first step."""

import dataclasses
import time

import pytest
import tensorflow as tf

from engine.outer_loop.stall_watchdog import StallWatchdog, duration
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

WAIT_SEC = 30.0  # most; each wait ends as soon as the run has reported it


class Until:
    """Waits until log.txt of a run has some words."""

    def __init__(self, log):
        self.log = log

    def __call__(self, words):
        deadline = time.monotonic() + WAIT_SEC
        while time.monotonic() < deadline:
            if self.log.exists() and words in self.log.read_text():
                return
            time.sleep(0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StalledPairs(NoisePairs):
    """Its examples from 6 on arrive only once the run says that it waits for them."""

    until: Until

    def batches(self, *, position_examples, global_batch, rows=None):
        def stall(batch):
            def wait(ids):
                if 6 in ids:
                    self.until("stalled: waiting for input")
                return ids

            ids = tf.numpy_function(wait, [batch["id"]], tf.int64)
            return batch | {"id": tf.ensure_shape(ids, batch["id"].shape)}

        batches = super().batches(position_examples=position_examples, global_batch=global_batch, rows=rows)
        return batches.map(stall)


class StalledPix2Pix(SmallPix2Pix):
    """Its tracing waits until the run says that it compiles; one of its steps until it is called stalled."""

    def __init__(self, until, **settings):
        super().__init__(**settings)
        self.until = until
        self.traced = False
        self.steps = 0

    def forward(self, step):
        if not self.traced:
            self.traced = True
            self.until("compiling the first step")
        with tf.control_dependencies([tf.numpy_function(self.wait, [], [])]):
            return super().forward(step)

    def wait(self):
        self.steps += 1
        if self.steps == 6:
            self.until("stalled: the step at")


def test_what_a_run_waits_for(make_trainer, tmp_path):
    until = Until(tmp_path / "run" / "log.txt")
    trainer = make_trainer(
        StalledPix2Pix(until, dropout=False),
        StalledPairs(until=until),
        workdir=str(tmp_path / "run"),
        total_examples=14,
        batch_schedule=2,
        steps_per_loop=3,
        report_stalls_after="1s",
        save_every=0,
        sample_every=0,
        log_every=100,
    )
    trainer.run()
    said = [line for line in until.log.read_text().splitlines() if "so far" in line or "moving" in line]
    # Of what takes several seconds on a slow machine, the first line counts.
    kinds = [line.split(" (for")[0].split(" after")[0] for line in said if "to be opened" not in line]
    assert kinds[0] == "compiling the first step with batches of 2"
    stalled = [kind for kind in kinds if kind.startswith("stalled")]
    assert stalled[0] == (
        "stalled: waiting for input: the batch of examples 6 to 7 has not arrived; check that the data set "
        "can be read"
    )
    assert stalled[-1] == (
        "stalled: the step at 10 examples does not end; its batch has arrived, so the devices compute"
    )
    assert len(set(stalled)) == 2 and kinds.count("moving again") >= 3
    # A batch of 6 and 7 is asked for in the second call, after one step of the first.
    assert kinds.index(stalled[0]) > 0


def watched(after, *, position=lambda: None, usual_sec=0.0, sec):
    lines = []
    with StallWatchdog(after, report=lines.append) as watchdog:
        with watchdog.watch(describe=lambda: "waiting", position=position, usual_sec=usual_sec):
            time.sleep(sec)
        time.sleep(0.3)  # nothing is watched
    return lines


def test_a_wait_is_reported_again_after_twice_as_long():
    lines = watched("1s", sec=2.9)
    assert [line.partition(" (")[0] for line in lines] == ["waiting", "waiting", "moving again after 3s"]


def test_no_false_alarm():
    assert watched("1s", sec=0.5) == []
    assert watched("1s", position=time.monotonic, sec=1.5) == []  # it moves
    assert watched("1s", usual_sec=1.0, sec=1.5) == []  # steps are that slow
    assert watched(None, sec=0.1) == []


@pytest.mark.parametrize("sec, text", [(5, "5s"), (65, "1m05s"), (3900, "1h05m")])
def test_duration(sec, text):
    assert duration(sec) == text
