"""Seconds that the boundaries of a growing batch cost: one line of JSON for each boundary.

python -m tests.benchmarks.whole_run.growth_peer

Trains the quickstart on its data with batches of 4, 8, 16 and 32. The first call of the compiled loop after
a boundary opens the data set anew and makes one step; the cost is what it takes over a usual step.
"""

import json
import sys
import tempfile
import time

from engine.gin_config import loader
from engine.outer_loop.loop_calls import LoopCaller
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory

# 30 steps of each batch.
SCHEDULE = "0:4, 120:8, 360:16, 840:32"
TOTAL_EXAMPLES = 1800


def main() -> None:
    """Trains, and writes the lines."""
    params = [f'BATCH_SCHEDULE = "{SCHEDULE}"', f"TOTAL_EXAMPLES = {TOTAL_EXAMPLES}"]
    params += [f"{name}_EVERY = 0" for name in ("LOG", "SAVE", "SAMPLE", "EVALUATE")]
    experiment, text = loader.load_experiment(gin_files=["gin/quickstart.gin"], gin_params=params)
    calls: list[tuple[int, int, float]] = []
    call = LoopCaller.call

    def timed(self, *args, **kwargs):
        began = time.perf_counter()
        done = call(self, *args, **kwargs)
        calls.append((done.batch.global_batch, done.result.steps, time.perf_counter() - began))
        return done

    LoopCaller.call = timed  # type: ignore[method-assign]
    stdout, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(experiment, RunDirectory(folder), config_text=text)
        trainer.run()
    first_batch = calls[0][0]
    for batch in sorted({batch for batch, _, _ in calls}):
        own = [(steps, sec) for each, steps, sec in calls if each == batch]
        usual = sum(sec for _, sec in own[1:]) / sum(steps for steps, _ in own[1:])
        if batch != first_batch:  # the first call of the run compiles
            row = {"batch": batch, "step_sec": usual, "boundary_sec": own[0][1] - usual}
            print(json.dumps(row | {"traces": trainer.loop.traces}), file=stdout, flush=True)


if __name__ == "__main__":
    main()
