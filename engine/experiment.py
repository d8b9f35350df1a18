"""The settings of a run: what a configuration file fills in and a notebook may construct directly."""

from __future__ import annotations

import dataclasses

from engine.durations import Duration, examples_of
from engine.evaluation import HIGHER_IS_BETTER
from engine.feeding import TrainingData
from engine.task import ConfigurationError, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on. Lengths and periods are in examples, or strings such as "20ep".

    Args:
      task: what is learned.
      data: from what.
      total_examples: the run ends with the first step that reaches it.
      seed: of initial weights and of all randomness in the networks and losses.
      strategy, cpu_replicas: see `engine.cluster.make_strategy`.
      precision: see `engine.cluster.set_precision`.
      batch_schedule: global batch, one number or "0:1, 4000:2, 20ep:8" (position: batch).
      learning_rate_rule: "none", "linear" or "square_root"; see `engine.learning_rate`.
      steps_per_loop: steps between two looks of Python at the run, at most.
      log_every, save_every, sample_every, evaluate_every: periods; 0 means only at the end.
      keep_checkpoints: newest checkpoints kept.
      best_metric: the evaluation metric by which RUN/best is chosen.
    """

    task: Task
    data: TrainingData
    total_examples: Duration
    seed: int = 0
    strategy: str = "auto"
    cpu_replicas: int = 1
    precision: str = "float32"
    batch_schedule: int | str = 1
    learning_rate_rule: str = "none"
    steps_per_loop: int = 100
    log_every: Duration = 1000
    save_every: Duration = 4000
    sample_every: Duration = 4000
    evaluate_every: Duration = 0
    keep_checkpoints: int = 3
    best_metric: str = "psnr_db"

    def __post_init__(self):
        for name, least in (("seed", 0), ("steps_per_loop", 1), ("keep_checkpoints", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"{name.upper()} = {getattr(self, name)}: must be at least {least}; raise it"
                )
        if self.seed >= 2**32:
            raise ConfigurationError(f"SEED = {self.seed}: must be below 2**32; lower it")
        if self.best_metric not in HIGHER_IS_BETTER:
            raise ConfigurationError(
                f"Experiment.best_metric = {self.best_metric!r}: unknown; use one of "
                f"{', '.join(HIGHER_IS_BETTER)}"
            )

    def examples(self, name: str) -> int:
        """The setting `name`, a duration, in examples."""
        return examples_of(
            getattr(self, name),
            examples_per_epoch=self.data.train_examples,
            name=name.upper(),
        )


# What may differ when a run is continued: how long, on what, and how often it reports. Everything else
# changes what is learned.
FREE_TO_CHANGE = frozenset(
    {
        "total_examples",
        "strategy",
        "cpu_replicas",
        "steps_per_loop",
        "log_every",
        "save_every",
        "sample_every",
        "evaluate_every",
        "keep_checkpoints",
        "best_metric",
        "data_dir",
    }
)
