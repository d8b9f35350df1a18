"""Restoring a trained run to use its networks."""

from __future__ import annotations

import dataclasses

from engine.distribution.determinism import is_deterministic
from engine.distribution.strategies import accelerators
from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.input_pipeline.recorded_data import RecordedData
from engine.outer_loop.trainer import Trainer
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory
from engine.training_data import TrainingData


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
    if not workdir:
        raise ConfigurationError("no --workdir given; name the run: --workdir=runs/NAME")
    run = RunDirectory(workdir)
    text = run.read_config()
    if text is None:
        raise ConfigurationError(
            f"--workdir={workdir}: holds no run (no config.gin); train one with python -m engine.train"
        )
    experiment = loader.load_experiment_text(text, where=run.config)
    # These settings matter only for training.
    experiment = dataclasses.replace(
        experiment, largest_micro_batch=None, initial_weights=None, jit_compile=False
    )
    if data_dir is not None:
        experiment = dataclasses.replace(experiment, data=_moved(experiment.data, data_dir))
    if (recorded := run.read_data()) is not None:
        experiment = dataclasses.replace(experiment, data=RecordedData(experiment.data, recorded))
    if not accelerators():  # the run was trained on another machine
        experiment = dataclasses.replace(experiment, gpus="all")
    if is_deterministic():  # a training in this process was; it cannot be undone and does no harm
        experiment = dataclasses.replace(experiment, determinism=True)
    trainer = Trainer(experiment, run)
    _restore(trainer, checkpoint)
    return trainer


def _moved(data: TrainingData, data_dir: str) -> TrainingData:
    """The data set in another folder."""
    if isinstance(data, type) or not dataclasses.is_dataclass(data) or not hasattr(data, "data_dir"):
        raise ConfigurationError(
            f"--data_dir={data_dir}: {type(data).__name__}, the data of the run, has no such setting; leave "
            "it out"
        )
    return dataclasses.replace(data, data_dir=data_dir)


def _restore(trainer: Trainer, checkpoint: str) -> None:
    run = trainer.run_directory
    directory = run.best if checkpoint == "best" else run.checkpoints
    if checkpoint in ("latest", "best"):
        if checkpoints.restore_latest(trainer.state, directory) is None:
            raise ConfigurationError(
                f"{directory}: no checkpoint; train the run further, or choose another --checkpoint"
            )
        return
    saved = checkpoints.list_checkpoints(directory)
    if not checkpoint.isdigit() or int(checkpoint) not in saved:
        raise ConfigurationError(
            f"--checkpoint={checkpoint}: there is no such checkpoint; choose 'latest', 'best', or one of "
            f"{', '.join(map(str, saved)) or 'none yet'}"
        )
    checkpoints.restore(trainer.state, directory, int(checkpoint))
