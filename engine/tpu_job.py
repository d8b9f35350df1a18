"""Trains on a Cloud TPU VM: creates it, installs Gantry there, trains, fetches the run, deletes the VM.

python -m engine.tpu_job --name=mine --zone=us-west4-a --accelerator_type=v5litepod-8 --spot \\
  --gin_file=gin/pix2pix.gin --gin_param='DATASET = "mine"' --gin_param='DATA_DIR = "gs://BUCKET/datasets"' \\
  --workdir=gs://BUCKET/runs/mine

It needs gcloud, logged in, and no TensorFlow. --dry_run prints the commands and runs none. The files that git
knows go to the VM as they lie here, changes that are not committed included. A preempted VM is
deleted, created again, and the run goes on from its last checkpoint in --workdir.

The same command goes on wherever it ended: with the VM if it exists, with the training that runs there, or
with fetching a run that is complete. Ctrl-C lets the training save, then deletes the VM; a second one does
not wait. Only where this program is killed or its terminal closed, training and VM go on.

Exit codes: those of the training (0 done, 2 bad configuration or input, 3 diverged); 42 interrupted, start
again; 1 anything else, such as an error of gcloud.
"""

from __future__ import annotations

import shutil
import signal
import sys

from absl import flags

from engine.cli.program import run_program
from engine.cloud.gcloud import DryRun, GcloudError, Shell
from engine.cloud.tpu_job import FAILED, TpuJob, _git, _say
from engine.cloud.tpu_job_flags import check, define_flags
from engine.errors import ConfigurationError


def main(values: flags.FlagValues) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    arguments = check(values)
    if not values.dry_run and not shutil.which("gcloud"):
        raise ConfigurationError(
            "gcloud: no such program; install the Google Cloud CLI and run gcloud auth login"
        )
    unknown = _git(arguments["checkout"], "ls-files", "--others", "--exclude-standard").splitlines()
    if unknown:
        _say(f"not sent, since git does not know them: {', '.join(unknown[:5])} ({len(unknown)} files)")
    try:
        code = TpuJob(**arguments, shell=DryRun() if values.dry_run else Shell()).run()
    except GcloudError as error:
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)
        code = FAILED
    sys.exit(code)


def run() -> None:
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
