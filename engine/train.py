"""Trains from gin files into a run directory; the same command continues a run.

  python -m engine.train --gin_file=gin/quickstart.gin --workdir=runs/quickstart
  python -m engine.train --gin_file=gin/pix2pix.gin --gin_param='DATASET = "mine"' --workdir=runs/mine

In a notebook: `from engine.train import train; train(gin_files=[...], workdir=...)`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Sequence

from absl import flags

from data.imaging.metric_names import is_of_features
from engine.cli.gin_flags import define_gin_flags
from engine.cli.program import run_program
from engine.distribution.strategies import is_chief_process, worker_count
from engine.distribution.worker_sync import reraise_worker_loss
from engine.errors import ConfigurationError, OutOfMemoryError, RunInterruptedError
from engine.experiment import Experiment
from engine.gin_config import loader
from engine.gin_config.diff import best_metric, differences, feature_extractor, total_examples
from engine.gin_config.free_settings import free_to_change
from engine.input_pipeline.recorded_data import describe
from engine.memory import micro_batch_limit
from engine.outer_loop.rate_warnings import changed_rate_lines
from engine.outer_loop.trainer import Summary, Trainer
from engine.storage.data_fingerprint import changes_of_data, write_fingerprint
from engine.storage.run_directory import RunDirectory


def train(
    *,
    gin_files: Sequence[str],
    workdir: str,
    gin_params: Sequence[str] = (),
    allow_config_change: bool = False,
) -> Summary:
    """Trains a new run in `workdir`, or continues the one that is there, up to its total.

    Args:
      gin_files: configuration files; later ones override earlier ones.
      workdir: run directory, made if missing.
      gin_params: overrides, such as "TOTAL_EXAMPLES = 400".
      allow_config_change: continue a run even if its configuration or its data set differs.

    Returns:
      Where the run ended, and how long this part of it took.

    Raises:
      ConfigurationError: something that the user set cannot work.
      data.errors.DataError: the data set cannot be used.
      engine.errors.RunInterruptedError: a signal came, and everything is saved; or one of several workers ran
        out of memory, and the next start computes on fewer examples at once.
      engine.errors.WorkerLostError: another worker has ended; the next start continues from the last
        checkpoint.
      engine.errors.DivergenceError: a loss or gradient was not finite.
      engine.errors.ReplicaMismatchError: the replicas' variables differ.
    """
    if not gin_files:
        raise ConfigurationError("no --gin_file given; start with --gin_file=gin/quickstart.gin")
    if not workdir:
        raise ConfigurationError("no --workdir given; name the run directory: --workdir=runs/NAME")
    experiment, text = loader.load_experiment(gin_files=gin_files, gin_params=gin_params)
    run = RunDirectory(workdir)
    run.create()
    # The chief writes the run; it holds the lock for all workers.
    with run.hold_lock() if is_chief_process(experiment.strategy) else contextlib.nullcontext():
        _accept_changes(experiment, run, text, allow_config_change=allow_config_change)
        automatic = experiment.largest_micro_batch == "auto"
        experiment = micro_batch_limit.resolve(experiment, run, text, log=run.note)
        while True:
            try:
                return _train_once(experiment, run, text, records_micro_batch=automatic)
            except OutOfMemoryError as error:
                experiment = _with_smaller_micro_batch(experiment, run, error)
                automatic = False  # the smaller one is recorded already


def _accept_changes(
    experiment: Experiment, run: RunDirectory, text: str, *, allow_config_change: bool
) -> None:
    """Compares configuration and data set with those of the run that `run` holds, if it holds one.

    Raises:
      ConfigurationError: they differ, and `allow_config_change` is False.
    """
    earlier = run.read_config()
    if earlier is None:
        return
    found = {
        "configuration": differences(
            earlier,
            text,
            free_to_change=free_to_change(experiment),
            examples_per_epoch=experiment.data.train_examples,
        ),
        "data": changes_of_data(run, experiment.data),
    }
    changed = {what: lines for what, lines in found.items() if lines}
    if not changed:
        return
    told = (
        f"{' and other '.join(changed)} ({'; '.join(line for lines in changed.values() for line in lines)})"
    )
    if not allow_config_change:
        with reraise_worker_loss():  # an error in the new configuration itself comes first
            Trainer(dataclasses.replace(experiment, largest_micro_batch=None, initial_weights=None), run)
        raise ConfigurationError(
            f"--workdir={run.path}: holds a run with {'another' if found['configuration'] else 'other'} "
            f"{told}; use another --workdir, or --allow_config_change to continue the run with the new "
            f"{' and '.join(changed)}"
        )
    if is_chief_process(experiment.strategy):
        run.note(f"continuing with other {told}")
    micro_batch_limit.discard(run)


def _train_once(
    experiment: Experiment, run: RunDirectory, text: str, *, records_micro_batch: bool
) -> Summary:
    """Trains until the run ends or memory runs out.

    Args:
      experiment: what to train.
      run: where its files are kept.
      text: the configuration, for config.gin.
      records_micro_batch: record the measured micro-batch in the run.
    """
    with reraise_worker_loss():
        earlier = run.read_config()
        trainer = Trainer(experiment, run, config_text=text)
        trainer.restore()
        _forget_other_best(experiment, trainer, earlier, text)
        if trainer.devices.is_chief:
            _note_changed_rates(experiment, run, trainer)
            write_fingerprint(run, experiment.data)
        if trainer.devices.is_multi_worker:
            _check_data_of_workers(experiment, run, trainer)
        if trainer.devices.is_chief:
            run.write_config(text)
            run.write_data(describe(experiment.data))
            if records_micro_batch:
                micro_batch_limit.record(
                    experiment, run, largest_micro_batch=trainer.plan.largest_micro_batch
                )
        return trainer.run()


def _check_data_of_workers(experiment: Experiment, run: RunDirectory, trainer: Trainer) -> None:
    """Compares the data sets of the workers, which may be copies, with that of the chief.

    Raises:
      ConfigurationError: one differs; on all workers.
    """
    trainer.sync.barrier()  # the chief has written its fingerprint
    differences = changes_of_data(run, experiment.data)
    if trainer.sync.minimum(0 if differences else 1):
        return
    how = "another worker says how"
    if differences:
        how = f"that of the chief -> that of this worker: {'; '.join(differences)}"
    raise ConfigurationError(
        f"data set: is not the same on all workers ({how}); give all of them the same files"
    )


def _forget_other_best(experiment: Experiment, trainer: Trainer, earlier: str | None, text: str) -> None:
    """Chooses the best checkpoint anew if the run continues with another metric, before config.gin says so.

    KID by another feature extractor is another metric.

    Args:
      experiment: the run as it continues.
      trainer: restored.
      earlier: the run's config.gin until now, read before a worker can have written another.
      text: the configuration as it continues.
    """
    if earlier is None or math.isnan(trainer.state.best.numpy()):
        return
    before, now = (
        dataclasses.replace(experiment, best_metric=name).chosen_metric
        for name in (best_metric(earlier), experiment.best_metric)
    )
    other = now or "no metric"
    if before == now:
        if now is None or not is_of_features(now) or feature_extractor(earlier) == feature_extractor(text):
            return
        other = f"{now} of other features"
    if trainer.devices.is_chief:
        trainer.run_directory.note(
            f"the best checkpoint was chosen by {before or 'no metric'} and now is by {other}: the next "
            "evaluation is the first that counts"
        )
    trainer.forget_best()


def _note_changed_rates(experiment: Experiment, run: RunDirectory, trainer: Trainer) -> None:
    """Says what a new TOTAL_EXAMPLES does to the learning rates of a run that goes on."""
    earlier = run.read_config()
    if earlier is None or not trainer.examples:
        return
    total = total_examples(earlier, examples_per_epoch=experiment.data.train_examples)
    if total and total != trainer.plan.total_examples:
        lines = changed_rate_lines(
            trainer.plan, experiment.task, earlier_total=total, examples=trainer.examples
        )
        for line in lines:
            run.note(line)


def _with_smaller_micro_batch(
    experiment: Experiment, run: RunDirectory, error: OutOfMemoryError
) -> Experiment:
    """After memory ran out: the experiment with half the micro-batch, which the run records.

    Raises:
      RunInterruptedError: there are other workers. They wait for the step that failed, and no worker can
        join them again, so all have to start anew.
    """
    smaller = micro_batch_limit.halve(experiment, run, micro_batch=error.micro_batch)
    if worker_count() > 1:
        raise RunInterruptedError(
            f"{error}: the next start computes on {smaller.largest_micro_batch}; start the same command "
            "again on all workers"
        ) from error
    run.note(
        f"{error}: continuing from the last checkpoint with {smaller.largest_micro_batch}; the global batch "
        "stays the same"
    )
    return smaller


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_gin_flags(values)
    flags.DEFINE_string(
        "workdir", None, "Run directory; if it holds a run, that run is continued.", flag_values=values
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue a run even if its configuration or its data set differs.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Trains as the flags say, and prints how to evaluate the run."""
    summary = train(
        gin_files=values.gin_file,
        gin_params=values.gin_param,
        workdir=values.workdir,
        allow_config_change=values.allow_config_change,
    )
    print(
        f"done: {summary.examples} examples in {summary.step} step{'' if summary.step == 1 else 's'}, "
        f"{summary.train_sec:.0f} s in this session\n"
        f"  run        {values.workdir}\n"
        f"  evaluate   python -m engine.evaluate {shlex.quote(f'--workdir={values.workdir}')} "
        f"--split={summary.split}"
    )


def run() -> None:
    """Entry point of the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
