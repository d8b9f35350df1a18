"""A peer of `tables`: `engine.train` in full, which pauses after each period of its log.

python -m tests.benchmarks.whole_run.run_peer --gin_file=gin/pix2pix.gin --turn_examples=10

A turn is `turn_examples` examples of real data, through the outer loop, with a row in the logs at its end.
Every other turn also writes samples and a checkpoint; it ends when they are on the disk.
"""

import argparse
import json
import sys
import tempfile
import time

from engine.gin_config import loader
from engine.outer_loop.run_actions import RunActions
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory

WARM_UP_TURNS = 2


class PausingActions(RunActions):
    """The actions of a run; after a turn, it waits for a line on stdin. The run ends with stdin."""

    turn_examples = 0
    _turns = 0
    _began = (0.0, 0.0)

    def run_due(self, call, **kwargs):
        """Runs the actions that are due, and pauses at the end of a turn."""
        super().run_due(call, **kwargs)
        if self._examples % self.turn_examples:
            return
        self._checkpointer.wait()
        wall, processor = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        self._turns += 1
        if self._turns == WARM_UP_TURNS:
            _write_row({"flop": 0.0})
        elif self._turns > WARM_UP_TURNS:
            steps = self.turn_examples // call.batch.global_batch
            times = {"sec": wall / steps, "processor_sec": processor / steps}
            _write_row(times | {"saved": self.saved_at == self._examples})
        if self._turns >= WARM_UP_TURNS and not sys.stdin.readline():
            sys.exit()  # the run itself has hours to go
        self._began = time.perf_counter(), time.process_time()


def _write_row(row) -> None:
    # As of `peer_protocol`. stdout itself has become stderr.
    print(json.dumps(row), file=sys.__stdout__, flush=True)


def main() -> None:
    """Trains until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gin_file", required=True)
    parser.add_argument("--gin_param", action="append", default=[])
    parser.add_argument("--turn_examples", type=int, required=True)
    options = parser.parse_args()
    turn = options.turn_examples
    periods = {"LOG_EVERY": turn, "SAVE_EVERY": 2 * turn, "SAMPLE_EVERY": 2 * turn, "EVALUATE_EVERY": 0}
    periods |= {"TOTAL_EXAMPLES": 10**6, "KEEP_CHECKPOINTS": 1}
    experiment, text = loader.load_experiment(
        gin_files=[options.gin_file],
        gin_params=[*options.gin_param, *(f"{name} = {value}" for name, value in periods.items())],
    )
    PausingActions.turn_examples = turn
    trainer_module = sys.modules[Trainer.__module__]
    trainer_module.RunActions = PausingActions  # type: ignore[attr-defined]
    sys.stdout = sys.stderr  # the log lines; stdout is for the rows
    with tempfile.TemporaryDirectory() as folder:
        Trainer(experiment, RunDirectory(folder), config_text=text).run()


if __name__ == "__main__":
    main()
