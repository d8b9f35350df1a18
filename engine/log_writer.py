"""The interface of everything that records what a run reports: console, files, TensorBoard, a tracker.

A tracker of your own is one subclass, which a gin file names:
`experiment.Experiment.tracker = @my_tracker.MyTracker()`. `engine.mlflow_tracker` is an example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

HyperParameters = Mapping[str, bool | int | float | str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """What a writer knows of the run when it starts.

    Attributes:
      path: the run directory. Its train.jsonl and eval.jsonl hold the rows up to `done_examples`.
      done_examples: the position from which the run goes on; 0 for a new run.
      total_examples: where it ends.
      examples_per_epoch: training examples in one epoch; None if it is not known.
      hyper_parameters: of the run, by name, to compare runs by.
    """

    path: str
    done_examples: int
    total_examples: int
    examples_per_epoch: int | None = None
    hyper_parameters: HyperParameters = dataclasses.field(default_factory=dict)


class LogWriter:
    """Records what a run reports in one place. Each method does nothing here; override what can be shown.

    Only the chief has writers. Methods are called from one thread, except `write_line`, which another thread
    may call too. A method that cannot write raises `engine.errors.ConfigurationError`, which ends the run.
    """

    def start(self, run: ReportedRun) -> None:
        """Begins to write. A run that was killed goes on from an earlier position than it had reported.

        Whatever was recorded after `run.done_examples` will be reported again.
        """

    def update_progress(self, examples: int) -> None:
        """Shows a position in examples; called after each call of the compiled loop."""

    def write_line(self, text: str) -> None:
        """Writes one or more lines for people."""

    def write_config(self, text: str) -> None:
        """Writes the configuration, as in config.gin."""

    def write_row(self, row: Mapping[str, float]) -> None:
        """Writes a row of train.jsonl; its position is row["examples"]."""

    def write_evaluation(self, row: Mapping[str, float | str]) -> None:
        """Writes a row of eval.jsonl; its position is row["examples"], and row["split"] was evaluated."""

    def write_samples(self, grid: np.ndarray, *, examples: int) -> None:
        """Writes a sample grid, uint8 [H, W, 1 or 3], at a position."""

    def write_weights(self, weights: Mapping[str, np.ndarray], *, examples: int) -> None:
        """Writes histograms of all weights, by name, at a position."""

    def close(self) -> None:
        """Ends. Called once, also after an error."""
