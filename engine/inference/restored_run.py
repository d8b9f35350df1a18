"""Restoring a trained run to use its networks."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from engine.distribution.determinism import is_deterministic
from engine.distribution.strategies import accelerators
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.gin_config import loader
from engine.input_pipeline.recorded_data import RecordedData
from engine.outer_loop.trainer import Trainer
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory
from engine.training_data import TrainingData


class LoadExperiment(Protocol):
    """Makes an experiment of the text of a config.gin."""

    def __call__(self, text: str, *, where: str) -> Experiment:
        """See `engine.gin_config.loader.load_experiment_text`."""


def restore_run(workdir: str, *, checkpoint: str = "latest", data_dir: str | None = None) -> Trainer:
    """Builds a run from its own configuration and restores one of its checkpoints.

    The prepared data set is read only if examples are asked for, or if the run has no dataset.json.

    Args:
      workdir: run directory.
      checkpoint: "latest", "best", or a position in examples.
      data_dir: folder of the prepared data sets; None is that of the run's configuration.

    Raises:
      ConfigurationError: there is no such run or checkpoint.
      data.errors.DataError: the run has no dataset.json, and its data set is missing.
    """
    run = RunDirectory(workdir)
    experiment = recorded_experiment(run, loader.load_experiment_text, data_dir=data_dir)
    # These settings matter only for training.
    experiment = dataclasses.replace(
        experiment,
        largest_micro_batch=None,
        initial_weights=None,
        jit_compile=False,
        cudnn_autotune=None,
        cuda_malloc_async=False,
    )
    if not accelerators():  # the run was trained on another machine
        experiment = dataclasses.replace(experiment, gpus="all")
    if is_deterministic():  # a training in this process was; it cannot be undone and does no harm
        experiment = dataclasses.replace(experiment, determinism=True)
    trainer = Trainer(experiment, run)
    checkpoints.load(trainer.state, *find_checkpoint(run, checkpoint))
    return trainer


def recorded_experiment(
    run: RunDirectory, load: LoadExperiment, *, data_dir: str | None = None
) -> Experiment:
    """The experiment of a run, whose data set need not be there.

    Args:
      run: the run.
      load: makes an experiment of the text of its config.gin.
      data_dir: as of `restore_run`.

    Raises:
      ConfigurationError: there is no such run.
      data.errors.DataError: the run has no dataset.json, and its data set is missing.
    """
    if not run.path:
        raise ConfigurationError("no --workdir given; name the run: --workdir=runs/NAME")
    text = run.read_config()
    if text is None:
        raise ConfigurationError(
            f"--workdir={run.path}: holds no run (no config.gin); train one with python -m engine.train"
        )
    experiment = load(text, where=run.config)
    if data_dir is not None:
        experiment = dataclasses.replace(experiment, data=_moved(experiment.data, data_dir))
    if (recorded := run.read_data()) is not None:
        experiment = dataclasses.replace(experiment, data=RecordedData(experiment.data, recorded))
    return experiment


def find_checkpoint(run: RunDirectory, checkpoint: str) -> tuple[str, int]:
    """Finds an intact checkpoint of a run.

    Args:
      run: the run.
      checkpoint: "latest", "best", or a position in examples.

    Returns:
      The directory that holds it, and its position in examples.

    Raises:
      ConfigurationError: there is none.
    """
    directory = run.best if checkpoint == "best" else run.checkpoints
    if checkpoint in ("latest", "best"):
        newest = checkpoints.newest_undamaged(directory)
        if newest is None:
            raise ConfigurationError(
                f"{directory}: no checkpoint; train the run further, or choose another --checkpoint"
            )
        return directory, newest
    saved = checkpoints.list_checkpoints(directory)
    if not checkpoint.isdigit() or int(checkpoint) not in saved:
        raise ConfigurationError(
            f"--checkpoint={checkpoint}: there is no such checkpoint; choose 'latest', 'best', or one of "
            f"{', '.join(map(str, saved)) or 'none yet'}"
        )
    checkpoints.check_intact(directory, int(checkpoint))
    return directory, int(checkpoint)


def _moved(data: TrainingData, data_dir: str) -> TrainingData:
    """The data set in another folder."""
    if isinstance(data, type) or not dataclasses.is_dataclass(data) or not hasattr(data, "data_dir"):
        raise ConfigurationError(
            f"--data_dir={data_dir}: {type(data).__name__}, the data of the run, has no such setting; leave "
            "it out"
        )
    return dataclasses.replace(data, data_dir=data_dir)
