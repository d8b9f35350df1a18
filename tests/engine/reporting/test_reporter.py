"""What TensorBoard shows of a run that was killed and continued."""

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.reporting.reporter import Reporter
from engine.storage.run_directory import RunDirectory

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
        reporter = Reporter(run, total_examples=20, done_examples=start)
        reporter.log_config(f"process {process}")
        for examples in range(start + 2, end + 1, 2):
            reporter.log_row({"examples": examples, "process": process, **LOGGED})
        reporter.close()
        if process == 0:  # as a killed process leaves it
            (path,) = (tmp_path / "tensorboard").iterdir()
            path.write_bytes(path.read_bytes() + b"half an event")
    shown = EventAccumulator(run.tensorboard, size_guidance={"tensors": 0})  # 0: all
    shown.Reload()
    # TensorFlow 2 writes scalars as tensors.
    points = [(point.step, tf.make_ndarray(point.tensor_proto).item()) for point in shown.Tensors("process")]
    assert points == [(step, float(step > restarted_at)) for step in range(2, 21, 2)]
