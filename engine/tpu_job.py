r"""Trains on a Cloud TPU VM: creates the VM, installs Gantry, trains, copies the run here, deletes the VM.

python -m engine.tpu_job --name=mine --zone=us-west4-a --accelerator_type=v5litepod-8 --spot \
  --gin_file=gin/pix2pix.gin --gin_param='DATASET = "mine"' --gin_param='DATA_DIR = "gs://BUCKET/datasets"' \
  --workdir=gs://BUCKET/runs/mine

This machine needs gcloud, logged in, but no TensorFlow. --dry_run prints the commands without running them.
All files that git tracks are copied to the VM, with uncommitted changes. If the VM is preempted, it is
deleted and created again, and training resumes from the last checkpoint in --workdir.

To resume a job, repeat its command: it uses the VM if there is one, follows a training that still runs there,
and only copies a run that is complete. Ctrl-C makes the training save and then deletes the VM; a second
Ctrl-C deletes it without waiting. If this program is killed or its terminal is closed, the VM and the
training continue.

Exit codes: that of the training (0 done, 2 bad configuration or input, 3 diverged); 42 interrupted, repeat
the command; 1 anything else, such as an error of gcloud.
"""

from __future__ import annotations

import shutil
import signal
import sys

from absl import flags

from engine.cli.program import print_error, run_program
from engine.cloud.gcloud import DryRun, GcloudError, Shell
from engine.cloud.tpu_job import FAILED, TpuJob, git, say
from engine.cloud.tpu_job_flags import check, define_flags
from engine.errors import ConfigurationError


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    arguments = check(values)
    if not values.dry_run and not shutil.which("gcloud"):
        raise ConfigurationError(
            "gcloud: not installed; install the Google Cloud CLI and run gcloud auth login"
        )
    untracked = git(arguments["checkout"], "ls-files", "--others", "--exclude-standard").splitlines()
    if untracked:
        say(f"not copied, because git does not track: {', '.join(untracked[:5])} ({len(untracked)} files)")
    try:
        code = TpuJob(**arguments, shell=DryRun() if values.dry_run else Shell()).run()
    except GcloudError as error:
        code = print_error(error, FAILED)
    sys.exit(code)


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
