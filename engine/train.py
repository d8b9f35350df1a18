"""Trains from gin files into a run directory; the same command continues a run.

  python -m engine.train --gin_file=gin/quickstart.gin --workdir=runs/quickstart
  python -m engine.train --gin_file=gin/pix2pix.gin --gin_param='DATASET = "mine"' --workdir=runs/mine

In a notebook: `from engine.train import train; train(gin_files=[...], workdir=...)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from absl import flags

from engine.cli.program import run_program
from engine.distribution.strategies import worker_count
from engine.distribution.worker_sync import reraise_worker_loss
from engine.errors import ConfigurationError, OutOfMemoryError, RunInterruptedError
from engine.gin_config import loader
from engine.memory import micro_batch_limit
from engine.outer_loop.trainer import Summary, Trainer
from engine.storage.run_directory import RunDirectory


def train(
    *,
    gin_files: Sequence[str],
    workdir: str,
    gin_params: Sequence[str] = (),
    allow_config_change: bool = False,
) -> Summary:
    """Trains, or continues, the run in `workdir` up to its total.

    Args:
      gin_files: configuration files, later ones override earlier ones.
      workdir: run directory, made if missing.
      gin_params: overrides, such as "TOTAL_EXAMPLES = 400".
      allow_config_change: continue a run although its configuration differs.

    Raises:
      ConfigurationError, data.errors.DataError: something set by the user cannot work.
      engine.errors.Interrupted: a signal came, and everything is saved; or memory ran out on one of
        several workers, and the next start computes on less at once.
      engine.errors.WorkerLostError: another worker has ended; the last checkpoint counts.
      engine.errors.Diverged: a loss or gradient was not finite.
      engine.errors.ReplicaMismatchError: replicas do not hold the same variables any more.
    """
    if not gin_files:
        raise ConfigurationError("no --gin_file given; start with --gin_file=gin/quickstart.gin")
    if not workdir:
        raise ConfigurationError("no --workdir given; say where the run is kept: --workdir=runs/NAME")
    experiment, text = loader.load_experiment(gin_files=gin_files, gin_params=gin_params)
    run = RunDirectory(workdir)
    run.create()
    earlier = run.read_config()
    if earlier is not None:
        changed = loader.differences(earlier, text, free_to_change=experiment.free_to_change)
        if changed and not allow_config_change:
            with reraise_worker_loss():  # a value that cannot work at all is refused as such
                Trainer(dataclasses.replace(experiment, largest_micro_batch=None, initial_weights=None), run)
            raise ConfigurationError(
                f"--workdir={run.path} holds a run with another configuration ({'; '.join(changed)}); use "
                "another --workdir, or --allow_config_change to continue it with the new one"
            )
        if changed:
            micro_batch_limit.discard(run)
    automatic = experiment.largest_micro_batch == "auto"
    experiment = micro_batch_limit.resolve(experiment, run, text, log=run.note)
    while True:
        try:
            with reraise_worker_loss():
                trainer = Trainer(experiment, run, config_text=text)
                trainer.restore()
                if trainer.devices.is_chief:
                    run.write_config(text)
                    if automatic:
                        micro_batch_limit.record(
                            experiment, run, largest_micro_batch=trainer.plan.largest_micro_batch
                        )
                        automatic = False
                return trainer.run()
        except OutOfMemoryError as error:
            experiment = micro_batch_limit.halve(experiment, run, micro_batch=error.micro_batch)
            if worker_count() > 1:  # the others wait for this step, and cannot be joined again
                raise RunInterruptedError(
                    f"out of memory at {error.examples} examples with {error.micro_batch} at once on a "
                    f"replica: the next start computes on {experiment.largest_micro_batch}; start the same "
                    "command again on all workers"
                ) from error
            run.note(
                f"out of memory at {error.examples} examples with {error.micro_batch} at once on a replica: "
                f"going on from the last checkpoint with {experiment.largest_micro_batch}; the global "
                "batch stays"
            )
            del trainer  # its memory is needed


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string("gin_file", [], "Configuration file", flag_values=values)
    flags.DEFINE_multi_string(
        "gin_param",
        [],
        "Override, such as 'TOTAL_EXAMPLES = 400'",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir", None, "Run directory; one that holds a run continues it.", flag_values=values
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue a run with a configuration that differs from its own.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    summary = train(
        gin_files=values.gin_file,
        gin_params=values.gin_param,
        workdir=values.workdir,
        allow_config_change=values.allow_config_change,
    )
    print(
        f"done: {summary.examples} examples in {summary.step} steps, {summary.train_sec:.0f} s this time\n"
        f"  run        {values.workdir}\n"
        f"  evaluate   python -m engine.evaluate --workdir={values.workdir} --split={summary.split}"
    )


def run() -> None:
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
