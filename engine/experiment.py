"""The settings of a run: what a configuration file fills in and a notebook may construct directly."""

from __future__ import annotations

import dataclasses
import functools

from data.imaging.metrics import HIGHER_IS_BETTER
from engine.adaptive_batch import GrowOnPlateau
from engine.batch_schedules import BatchGrowth, BatchSchedule, resolve_batch_schedule
from engine.distribution.gpus import numbers_of
from engine.durations import Duration, examples_of, seconds_of
from engine.errors import ConfigurationError
from engine.task import InitialWeights, MetricSchedule, Task
from engine.training_data import TrainingData

POLICIES = ("stop", "skip", "restore")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on. Lengths and periods are in examples, or strings such as "20ep".

    Args:
      task: what is learned.
      data: from what.
      total_examples: the run ends with the first step that reaches it.
      seed: of initial weights and of all randomness in the networks and losses.
      initial_weights: where a new run's weights come from instead of `seed`, such as
        `models.torch_weights.TorchWeights`; a run that goes on does not ask for them.
      strategy, cpu_replicas, gpus: see `engine.distribution.devices.make_devices`.
      precision: see `engine.distribution.precision.set_precision`.
      determinism: the same bits in every run on the same devices, also where that is slower; see
        `engine.distribution.determinism`.
      jit_compile: compile the step with XLA, on one device and in whole batches; see
      `engine.distribution.xla`.
      batch_schedule: global batch: one number, "0:1, 4000:2, 20ep:8" (position: batch), or a schedule of
        `engine.batch_schedules` or `engine.adaptive_batch`.
      largest_micro_batch: examples a replica computes on at once, at most; larger batches are
        accumulated. None: whole batches; "auto": what fits into memory, found before training.
      memory_fraction: part of the free memory that "auto" plans for.
      memory_bytes: plans for so much memory instead of what is free; 0 is what is free.
      learning_rate_rule, scale_weight_decay, scale_ema_decay: what a larger batch does to them; see
        `engine.batching.scaling_rules`.
      warmup_after_growth: length of a learning-rate warm-up after each growth of the batch.
      measure_noise_scale: measure and log every phase's gradient noise scale also where the batch
        schedule does not ask for it.
      noise_scale_smoothing: decay of its averages, for each step.
      steps_per_loop: steps between two looks of Python at the run, at most.
      log_every, save_every, sample_every, evaluate_every: periods; 0 means only at the end.
      check_replicas_every: period in which the replicas' variables are compared bit for bit, and before each
        checkpoint; see `engine.distribution.replica_consistency`. 0 or None: never.
      keep_checkpoints: newest undamaged checkpoints kept.
      max_wall_time: time from the start of the process, such as "8h30m", within which the run saves and
        stops as if interrupted; None: no limit.
      on_non_finite: what happens when a loss or gradient is not finite: "stop", "skip" or "restore"; see
        `engine.outer_loop.nan_policy`.
      best_metric: the evaluation metric by which RUN/best is chosen; there is none where inputs and targets
        do not correspond, as no metric tells then.
    """

    task: Task
    data: TrainingData
    total_examples: Duration
    seed: int = 0
    initial_weights: InitialWeights | None = None
    strategy: str = "auto"
    cpu_replicas: int = 1
    gpus: str = "all"
    precision: str = "float32"
    determinism: bool = False
    jit_compile: bool = False
    batch_schedule: int | str | BatchGrowth = 1
    largest_micro_batch: int | str | None = None
    memory_fraction: float = 0.8
    memory_bytes: int = 0
    learning_rate_rule: str = "none"
    warmup_after_growth: Duration = 0
    scale_weight_decay: bool = False
    scale_ema_decay: bool = False
    measure_noise_scale: bool = False
    noise_scale_smoothing: float = 0.99
    steps_per_loop: int = 100
    log_every: Duration = 1000
    save_every: Duration = 4000
    sample_every: Duration = 4000
    evaluate_every: Duration = 0
    check_replicas_every: Duration | None = None
    keep_checkpoints: int = 3
    max_wall_time: str | None = None
    on_non_finite: str = "stop"
    best_metric: str = "psnr_db"

    def __post_init__(self):
        for name, least in (("seed", 0), ("steps_per_loop", 1), ("keep_checkpoints", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"{name.upper()} = {getattr(self, name)}: must be at least {least}; raise it"
                )
        # Before an epoch's length is known, which takes the data.
        for name in ("total_examples", "log_every", "save_every", "sample_every", "evaluate_every"):
            examples_of(getattr(self, name), examples_per_epoch=10**9, name=name.upper())
        if self.seed >= 2**32:
            raise ConfigurationError(f"SEED = {self.seed}: must be below 2**32; lower it")
        micro = self.largest_micro_batch
        if not (micro is None or micro == "auto" or (isinstance(micro, int) and micro >= 1)):
            raise ConfigurationError(
                f"LARGEST_MICRO_BATCH = {micro!r}: must be a number of examples of at least 1, 'auto', or "
                "None for whole batches"
            )
        numbers_of(self.gpus)  # refuses what is no such setting
        if self.gpus != "all" and self.cpu_replicas > 1:
            raise ConfigurationError(
                f"GPUS = {self.gpus!r} and CPU_REPLICAS = {self.cpu_replicas}: replicas are on GPUs or on "
                "CPUs; set one of the two"
            )
        if self.jit_compile and micro is not None:
            raise ConfigurationError(
                f"JIT_COMPILE = True: XLA compiles whole batches, and LARGEST_MICRO_BATCH = {micro!r} (or "
                "memory that ran out) for parts of them; set LARGEST_MICRO_BATCH = None, or JIT_COMPILE = "
                "False"
            )
        if not 0 < self.memory_fraction <= 1:
            raise ConfigurationError(
                f"Experiment.memory_fraction = {self.memory_fraction}: must lie in (0, 1], such as 0.8"
            )
        if self.best_metric not in HIGHER_IS_BETTER:
            raise ConfigurationError(
                f"Experiment.best_metric = {self.best_metric!r}: unknown; use one of "
                f"{', '.join(HIGHER_IS_BETTER)}"
            )
        if self.max_wall_time is not None:
            seconds_of(self.max_wall_time, name="Experiment.max_wall_time")
        if self.on_non_finite not in POLICIES:
            raise ConfigurationError(
                f"Experiment.on_non_finite = {self.on_non_finite!r}: unknown; use one of "
                f"{', '.join(POLICIES)}"
            )
        if not self.data.is_paired and self._followers:
            raise ConfigurationError(
                f"{type(self._followers[0]).__name__} follows a metric, but the data are unpaired, so none "
                "tells how good a translation is; choose a schedule by position, such as '0ep:1, 20ep:4'"
            )
        spaces = self.task.colour_spaces
        if spaces is not None and self.data.colour_space not in spaces:
            raise ConfigurationError(
                f"{type(self.data).__name__}.colour_space = {self.data.colour_space!r}: "
                f"{type(self.task).__name__} does not learn from it; set it to one of {', '.join(spaces)}"
            )

    @functools.cached_property
    def resolved_batch_schedule(self) -> BatchSchedule:
        """The batch schedule with every length in examples.

        Raises:
          ConfigurationError: quotes the entry or the setting that is wrong.
        """
        return resolve_batch_schedule(self.batch_schedule, examples_per_epoch=self.data.train_examples)

    @property
    def free_to_change(self) -> frozenset[str]:
        """Settings that may differ when a run is continued, by their full gin names."""
        if self._followers:
            return _FREE_TO_CHANGE - {
                "experiment.Experiment.evaluate_every"
            }  # each evaluation may decide something
        return _FREE_TO_CHANGE

    @property
    def _followers(self) -> list:
        """Schedules that follow an evaluation metric."""
        schedules = [self.batch_schedule, *(adam.schedule for adam in self.task.optimizers.values())]
        return [s for s in schedules if isinstance(s, (GrowOnPlateau, MetricSchedule))]

    def examples(self, name: str) -> int:
        """The setting `name`, a duration, in examples."""
        return examples_of(
            getattr(self, name),
            examples_per_epoch=self.data.train_examples,
            name=name.upper(),
        )


# What may differ when a run is continued: how long, on what, in which pieces, and how often it reports.
# Everything else changes what is learned. In full, so that no setting of a user's own class is meant.
_FREE_TO_CHANGE = frozenset(
    {
        *(
            f"experiment.Experiment.{name}"
            for name in (
                "total_examples",
                "strategy",
                "cpu_replicas",
                "gpus",
                "determinism",
                "jit_compile",
                "steps_per_loop",
                "log_every",
                "save_every",
                "sample_every",
                "evaluate_every",
                "check_replicas_every",
                "keep_checkpoints",
                "max_wall_time",
                "on_non_finite",
                "best_metric",
                "largest_micro_batch",
                "memory_fraction",
                "memory_bytes",
            )
        ),
        *(
            f"supply.Supply.{name}"
            for name in (
                "cache",
                "on_bad_record",
                "largest_bad_share",
                "ram_budget_bytes",
                "max_pixels",
                "service",
            )
        ),
        "pairs.PairedImages.data_dir",
        "single.SingleImages.data_dir",
        "unpaired.UnpairedImages.data_dir",
    }
)
