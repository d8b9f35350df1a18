"""The workers of a SLURM job step, as the TF_CONFIG that everything else here reads."""

from __future__ import annotations

import json
import os
import re

import tensorflow as tf

from engine.errors import ConfigurationError

_FIRST_PORT, _PORTS = 20_000, 10_000  # below those that Linux gives out by itself


def tf_config_of_slurm() -> str | None:
    """TF_CONFIG of this task of an `srun` of several tasks; None outside of one.

    Task n of the step is worker n. Jobs that share a node get different ports from their numbers.

    Raises:
      ConfigurationError: the step is not laid out node by node.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "SLURM_PROCID" not in os.environ:
        return None
    # Only who is where is taken from the resolver. It fails on nodes without GPUs unless told some number,
    # and SLURM itself shows each task its own GPUs.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=_FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % _PORTS,
        gpus_per_node=tasks,
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    # The resolver sorts "node10" before "node9"; SLURM, which numbers the tasks, does not.
    addresses = sorted(resolver.cluster_spec().job_tasks("worker"), key=_numbers_as_numbers)
    rank = int(os.environ["SLURM_PROCID"])
    here = os.environ.get("SLURMD_NODENAME", "")
    if here and addresses[rank].rpartition(":")[0] != here:
        raise ConfigurationError(
            f"STRATEGY = 'multi_worker': task {rank} of this SLURM step runs on {here}, where node by node "
            f"it would be {addresses[rank].rpartition(':')[0]}; add --distribution=block to srun, or set "
            "TF_CONFIG on every worker"
        )
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})


def _numbers_as_numbers(address: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", address)]
