"""Which settings may differ when a run is continued."""

from __future__ import annotations

from data.imaging.metric_names import is_of_features
from engine.experiment import Experiment

# The length of a run, its devices, its files, and how often it reports. Everything else changes what is
# learned. A setting of a user's own class is never free.
_FREE_TO_CHANGE = frozenset(
    f"{owner}.{name}"
    for owner, names in {
        "engine.experiment.Experiment": (
            "total_examples strategy cpu_replicas gpus determinism jit_compile cudnn_autotune "
            "cuda_malloc_async recompute steps_per_loop "
            "log_every save_every sample_every evaluate_every check_replicas_every keep_checkpoints "
            "max_wall_time on_non_finite best_metric early_stopping feature_extractor largest_micro_batch "
            "memory_fraction memory_bytes report_stalls_after histograms_every profile_at profile_steps "
            "tracker metrics lpips"
        ),
        "engine.early_stopping.EarlyStopping": "metric patience minimum_change smoothing",
        "engine.smoothing.CentredWindow": "evaluations",
        "engine.smoothing.Exponential": "decay",
        "engine.mlflow_tracker.MlflowTracker": "uri experiment run_name",
        "models.application_features.ApplicationFeatures": "application weights image_size",
        "models.lpips.Lpips": "network weights",
        "data.pairs.PairedImages": "data_dir",
        "data.unpaired.UnpairedImages": "data_dir",
        "data.single.SingleImages": "data_dir",
        "data.labelled.LabelledImages": "data_dir",
        "data.supply.Supply": ("cache on_bad_record largest_bad_share ram_budget_bytes max_pixels service"),
    }.items()
    for name in names.split()
)

# Settings of these that change what is learned if a schedule follows a metric.
_FOLLOWED = frozenset(
    name
    for name in _FREE_TO_CHANGE
    if name == "engine.experiment.Experiment.evaluate_every" or name.startswith("engine.smoothing.")
)

# They choose the unit of KID and FID, so they stay while a schedule or early stopping follows one of these.
_OF_FEATURES = frozenset(
    name
    for name in _FREE_TO_CHANGE
    if name == "engine.experiment.Experiment.feature_extractor" or "ApplicationFeatures" in name
)


def free_to_change(experiment: Experiment) -> frozenset[str]:
    """Full names of the settings that may differ when a run is continued."""
    free = _FREE_TO_CHANGE
    if experiment.metric_followers:  # each evaluation may change the batch or the learning rate
        free -= _FOLLOWED
    stopping = [experiment.early_stopping] if experiment.early_stopping else []
    followers = [*experiment.metric_followers, *stopping]
    metrics = [getattr(each, "metric", None) or experiment.chosen_metric for each in followers]
    if any(metric is not None and is_of_features(metric) for metric in metrics):
        free -= _OF_FEATURES
    return free
