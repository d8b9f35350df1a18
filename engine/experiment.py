"""The settings of a run, which a gin file sets and a notebook may construct directly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from data.imaging.metric_names import (
    LEARNED_METRIC,
    MORE_METRICS,
    default_metric,
    known_metrics,
    metric_of,
    needs_targets,
)
from engine.adaptive_batch import GrowOnPlateau
from engine.batch_schedules import BatchGrowth, BatchSchedule, resolve_batch_schedule
from engine.distribution.gpus import numbers_of
from engine.durations import Duration, examples_of, seconds_of
from engine.early_stopping import EarlyStopping, StoppingRule
from engine.errors import ConfigurationError
from engine.evaluation.metric_choice import check_names
from engine.evaluation.random_features import RandomFeatures
from engine.feature_extractor import FeatureExtractor, LearnedMetric
from engine.log_writer import LogWriter
from engine.optimizers import MetricSchedule
from engine.parameter_groups import ParameterGroup
from engine.task import InitialWeights, Task
from engine.training_data import TrainingData

POLICIES = ("stop", "skip", "restore")
"""What `on_non_finite` may be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run depends on. Lengths and periods are in examples, or strings such as "20ep".

    Attributes:
      task: what to learn.
      data: the data set to learn it from.
      total_examples: the run ends with the first step that reaches it.
      seed: of initial weights and of all randomness in the networks and losses.
      initial_weights: where a new run's weights come from instead of `seed`, such as
        `models.torch_weights.TorchWeights`; a run that is continued does not use them.
      adversarial_start: length of a warm-up at the start in which generators learn from their reconstruction
        losses alone. Discriminators and adversarial terms join with the first step that starts at or after
        it; until then they neither run nor change.
      strategy, cpu_replicas, gpus: see `engine.distribution.devices.make_devices`.
      precision: see `engine.distribution.precision.set_precision`.
      determinism: the same bits in every run on the same devices, even where that is slower; see
        `engine.distribution.determinism`.
      jit_compile: compile the step with XLA, in whole batches; on several devices, the parts of it between
        the all-reduces, without batch norm; see `engine.distribution.xla`.
      tf32, cudnn_autotune, cuda_malloc_async: how GPUs compute; see `engine.distribution.gpu_options`.
      recompute: compute the activations of networks again in the backward pass instead of keeping them: less
        memory for more time; see `engine.inner_loop.recompute_plan`.
      batch_schedule: global batch: one number, "0:1, 4000:2, 20ep:8" (position: batch), or a schedule of
        `engine.batch_schedules` or `engine.adaptive_batch`. "8 per replica" may stand for a number.
      largest_micro_batch: the most examples that a replica computes on at once; gradients of larger batches
        are accumulated. None: whole batches; "auto": as many as fit into memory, measured before training.
      memory_fraction: part of the free memory that "auto" uses.
      memory_bytes: memory that "auto" uses, instead of a part of what is free; 0: a part of what is free.
      learning_rate_rule, scale_weight_decay, scale_ema_decay: how these follow the batch size; see
        `engine.batching.scaling_rules`.
      warmup: length of a learning-rate warm-up at the start of the run.
      warmup_after_growth: length of a learning-rate warm-up after each growth of the batch.
      measure_noise_scale: measure and log every phase's gradient noise scale even if the batch schedule does
        not need it.
      noise_scale_smoothing: decay of its moving averages per step.
      steps_per_loop: the most steps of one call of the compiled loop.
      log_every, save_every, sample_every, evaluate_every: periods; 0 means only at the end.
      check_replicas_every: period of the bit-for-bit comparison of the replicas' variables, which is also
        made before each checkpoint; see `engine.distribution.replica_consistency`. 0 or None: never.
      keep_checkpoints: how many undamaged checkpoints are kept, the newest ones.
      max_wall_time: time from the start of the process, such as "8h30m", within which the run saves and
        stops as if interrupted; None: no limit.
      on_non_finite: what to do when a loss or gradient is not finite: "stop", "skip" or "restore"; see
        `engine.outer_loop.nan_policy`.
      report_stalls_after: time such as "5m" without a new batch or step after which the run says what it
        waits for; see `engine.outer_loop.stall_watchdog`. None: never.
      histograms_every: period of histograms of all weights in TensorBoard; 0 means only at the end, None
        never.
      profile_at: position from which `profile_steps` steps are profiled for TensorBoard; None: never.
      profile_steps: how many.
      tracker: records the run somewhere else too, such as `engine.mlflow_tracker.MlflowTracker`.
      best_metric: the evaluation metric that chooses RUN/best, by its name in eval.jsonl without "metric/";
        None: `data.imaging.metric_names.default_metric`. There is no best checkpoint if evaluations do not
        measure it, as psnr_db of unpaired data.
      feature_extractor: of the features that KID and FID compare, such as
        `models.application_features.ApplicationFeatures`; None measures neither. Figures of different
        extractors are not comparable.
      metrics: metrics of images that evaluations measure beside the usual five, of
        `data.imaging.metric_names.MORE_METRICS`.
      lpips: evaluations measure LPIPS too, such as `models.lpips.Lpips` with its weights; None: they do not.
      parameter_groups: variables that are frozen, or learn at rates of their own.
      early_stopping: ends the run when a metric has stopped improving; None: it ends at its total only.
    """

    task: Task
    data: TrainingData
    total_examples: Duration
    seed: int = 0
    initial_weights: InitialWeights | None = None
    adversarial_start: Duration = 0
    strategy: str = "auto"
    cpu_replicas: int = 1
    gpus: str = "all"
    precision: str = "float32"
    determinism: bool = False
    jit_compile: bool = False
    tf32: bool = True
    cudnn_autotune: bool | None = None
    cuda_malloc_async: bool = False
    recompute: bool = False
    batch_schedule: int | str | BatchGrowth = 1
    largest_micro_batch: int | str | None = None
    memory_fraction: float = 0.8
    memory_bytes: int = 0
    learning_rate_rule: str = "none"
    warmup: Duration = 0
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
    report_stalls_after: str | None = "5m"
    histograms_every: Duration | None = None
    profile_at: Duration | None = None
    profile_steps: int = 10
    tracker: LogWriter | None = None
    best_metric: str | None = None
    early_stopping: EarlyStopping | None = None
    feature_extractor: FeatureExtractor | None = dataclasses.field(default_factory=RandomFeatures)
    metrics: Sequence[str] = ()
    lpips: LearnedMetric | None = None
    parameter_groups: Sequence[ParameterGroup] = ()

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_devices()
        self._check_choices()
        self._check_schedules()
        self._check_colours()

    def _check_numbers(self) -> None:
        least_values = (("seed", 0), ("steps_per_loop", 1), ("keep_checkpoints", 1), ("profile_steps", 1))
        for name, least in least_values:
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"{name.upper()} = {getattr(self, name)}: must be at least {least}; raise it"
                )
        # How long an epoch is only the data know, which are not read yet.
        lengths = ("total_examples", "adversarial_start")
        for name in (*lengths, "log_every", "save_every", "sample_every", "evaluate_every"):
            examples_of(getattr(self, name), examples_per_epoch=10**9, name=name.upper())
        for name in ("histograms_every", "profile_at"):
            if getattr(self, name) is not None:
                examples_of(getattr(self, name), examples_per_epoch=10**9, name=f"Experiment.{name}")
        if self.seed >= 2**32:
            raise ConfigurationError(f"SEED = {self.seed}: must be below 2**32; lower it")
        if not 0 < self.memory_fraction <= 1:
            raise ConfigurationError(
                f"Experiment.memory_fraction = {self.memory_fraction}: must lie in (0, 1]; 0.8 is usual"
            )
        for name in ("max_wall_time", "report_stalls_after"):
            if getattr(self, name) is not None:
                seconds_of(getattr(self, name), name=f"Experiment.{name}")

    def _check_devices(self) -> None:
        micro = self.largest_micro_batch
        if not (micro is None or micro == "auto" or (isinstance(micro, int) and micro >= 1)):
            raise ConfigurationError(
                f"LARGEST_MICRO_BATCH = {micro!r}: unknown; use a number of examples of at least 1, "
                "'auto', or None for whole batches"
            )
        numbers_of(self.gpus)  # raises if GPUS is neither a word it knows nor numbers
        if self.gpus != "all" and self.cpu_replicas > 1:
            raise ConfigurationError(
                f"GPUS = {self.gpus!r} and CPU_REPLICAS = {self.cpu_replicas}: replicas are on GPUs or on "
                "CPUs; set one of the two"
            )
        if self.jit_compile and micro is not None:
            raise ConfigurationError(
                f"JIT_COMPILE = True: XLA compiles whole batches, but LARGEST_MICRO_BATCH = {micro!r} (or an "
                "earlier lack of memory) splits them; set LARGEST_MICRO_BATCH = None or JIT_COMPILE = False"
            )

    def _check_choices(self) -> None:
        if self.on_non_finite not in POLICIES:
            raise ConfigurationError(
                f"Experiment.on_non_finite = {self.on_non_finite!r}: unknown; use one of "
                f"{', '.join(POLICIES)}"
            )
        if self.best_metric is not None and metric_of(self.best_metric) is None:
            raise ConfigurationError(
                f"Experiment.best_metric = {self.best_metric!r}: unknown; use one of {known_metrics()}"
            )
        check_names(self.metrics, setting="Experiment.metrics")
        for setting, name in self.named_metrics.items():
            metric = metric_of(name)
            if metric in MORE_METRICS and metric not in self.metrics:
                raise ConfigurationError(
                    f"{setting} = {name!r}: evaluations do not measure {metric}; add it to Experiment.metrics"
                )
            if metric == LEARNED_METRIC and self.lpips is None:
                raise ConfigurationError(
                    f"{setting} = {name!r}: evaluations do not measure {metric}; set Experiment.lpips to its "
                    "weights"
                )

    def _check_schedules(self) -> None:
        if self.data.is_paired:
            return
        for follower in self.metric_followers:
            metric = getattr(follower, "metric", None)
            if metric is None or needs_targets(metric):
                raise ConfigurationError(
                    f"{type(follower).__name__}: follows {metric or 'a metric'}, but unpaired data have no "
                    "targets to measure it by; name a metric that needs none, or choose a schedule by "
                    "position: '0ep:1, 20ep:4'"
                )
        if self.early_stopping is not None:
            metric = self.early_stopping.metric or self.chosen_metric
            if metric is None or needs_targets(metric):
                raise ConfigurationError(
                    f"EarlyStopping.metric = {self.early_stopping.metric!r}: unpaired data have no targets "
                    "to measure it by; name a metric that needs none, or set Experiment.early_stopping = None"
                )

    def _check_colours(self) -> None:
        spaces = self.task.colour_spaces
        if spaces is not None and self.data.colour_space not in spaces:
            raise ConfigurationError(
                f"{type(self.data).__name__}.colour_space = {self.data.colour_space!r}: "
                f"{type(self.task).__name__} does not learn from it; set it to one of {', '.join(spaces)}"
            )

    def batch_schedule_on(self, replicas: int) -> BatchSchedule:
        """The batch schedule on so many replicas, with every length in examples.

        Raises:
          ConfigurationError: quotes the entry or the setting that is wrong.
        """
        return resolve_batch_schedule(
            self.batch_schedule, examples_per_epoch=self.data.train_examples, replicas=replicas
        )

    def with_data_lengths(self) -> Experiment:
        """The experiment with the lengths that its data has as texts, such as "50%" of the run, as numbers.

        These are `random_crop_epochs`, and `ramp_examples` of augmentations.

        Raises:
          ConfigurationError: one is no length.
        """
        changes: dict[str, Any] = {}
        crops = getattr(self.data, "random_crop_epochs", None)
        if isinstance(crops, str):  # the last epoch with crops is not broken off
            examples = self._data_length(crops, "random_crop_epochs")
            changes["random_crop_epochs"] = math.ceil(examples / self.data.train_examples)
        augmentations: Sequence[Any] = getattr(self.data, "augmentations", ())
        ramps = [getattr(each, "ramp_examples", None) for each in augmentations]
        if any(isinstance(ramp, str) for ramp in ramps):
            changes["augmentations"] = tuple(
                dataclasses.replace(each, ramp_examples=self._data_length(ramp, "ramp_examples"))
                if isinstance(ramp, str)
                else each
                for each, ramp in zip(augmentations, ramps, strict=True)
            )
        if not changes:
            return self
        settings: Any = self.data  # of a data set that has these, a dataclass
        return dataclasses.replace(self, data=dataclasses.replace(settings, **changes))

    def _data_length(self, length: str, name: str) -> int:
        epoch = self.data.train_examples
        total = examples_of(self.total_examples, examples_per_epoch=epoch, name="TOTAL_EXAMPLES")
        return examples_of(length, examples_per_epoch=epoch, total_examples=total, name=name)

    @property
    def chosen_metric(self) -> str | None:
        """The evaluation metric that chooses the best checkpoint; None chooses none."""
        return self.best_metric or default_metric(
            is_paired=self.data.is_paired, target_kind=self.task.target_kind
        )

    @property
    def named_metrics(self) -> dict[str, str]:
        """The evaluation metrics that settings name, by the name of the setting."""
        followers: list[object] = [*self.metric_followers, self.early_stopping]
        named = {f"{type(each).__name__}.metric": getattr(each, "metric", None) for each in followers}
        named["Experiment.best_metric"] = self.best_metric
        return {setting: name for setting, name in named.items() if name is not None}

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """When the run ends early, with every length in examples; None: never.

        Raises:
          ConfigurationError: its patience is shorter than one example.
        """
        metric = (self.early_stopping and self.early_stopping.metric) or self.chosen_metric
        if self.early_stopping is None or metric is None:
            return None
        return self.early_stopping.resolve(metric=metric, examples_per_epoch=self.data.train_examples)

    @property
    def metric_followers(self) -> list[GrowOnPlateau | MetricSchedule]:
        """The schedules that follow an evaluation metric."""
        schedules = [self.batch_schedule, *(adam.schedule for adam in self.task.optimizers.values())]
        return [each for each in schedules if isinstance(each, GrowOnPlateau | MetricSchedule)]

    def examples(self, name: str) -> int:
        """The setting `name`, a duration, in examples."""
        return examples_of(
            getattr(self, name),
            examples_per_epoch=self.data.train_examples,
            name=name.upper(),
        )
