"""TF_CONFIG from SLURM's environment variables: the workers of a job step."""

from __future__ import annotations

import json
import os
import re

import tensorflow as tf

from engine.errors import ConfigurationError

_FIRST_PORT, _PORTS = 20_000, 10_000  # below the ports that Linux assigns by itself


def tf_config_of_slurm() -> str | None:
    """TF_CONFIG of this task of an `srun` with several tasks; None outside of one.

    Task n of the step is worker n. The ports depend on the job number, so that jobs may share a node.

    Raises:
      ConfigurationError: the tasks are not distributed node by node.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "SLURM_PROCID" not in os.environ:
        return None
    # The resolver is used for the addresses only. It divides by the numbers of GPUs, so these are dummies;
    # SLURM itself shows each task its own GPUs.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=_FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % _PORTS,
        gpus_per_node=tasks,
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    # The resolver sorts "node10" before "node9"; SLURM numbers the tasks in numeric order.
    addresses = sorted(resolver.cluster_spec().job_tasks("worker"), key=_natural_order)
    rank = int(os.environ["SLURM_PROCID"])
    here = os.environ.get("SLURMD_NODENAME", "")
    if here and addresses[rank].rpartition(":")[0] != here:
        raise ConfigurationError(
            f"STRATEGY = 'multi_worker': task {rank} of this SLURM step runs on {here}; distributed node by "
            f"node it would run on {addresses[rank].rpartition(':')[0]}; add --distribution=block to srun, "
            "or set TF_CONFIG on every worker"
        )
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})


def _natural_order(address: str) -> list[tuple[int, str]]:
    """A sort key by which "node9" comes before "node10"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", address)]
