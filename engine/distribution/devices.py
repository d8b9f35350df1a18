"""The devices of a run: the strategy, and what the rest of the engine asks about it."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from engine.distribution.gpus import numbers_in_use
from engine.distribution.host_allocator import keep_freed_memory
from engine.distribution.strategies import make_strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """The strategy of a run and what follows from its kind.

    Attributes:
      strategy: runs functions on the replicas and holds their variables.
      is_chief: whether this process writes logs and checkpoints; true with one worker.
      is_multi_worker: whether the replicas are spread over several processes, the workers.
      is_tpu: whether the replicas are TPU cores.
      gpus: nvidia-smi's numbers of the GPUs in use; empty where there are none.
    """

    strategy: tf.distribute.Strategy
    is_chief: bool = True
    is_multi_worker: bool = False
    is_tpu: bool = False
    gpus: tuple[int, ...] = ()

    @property
    def replicas(self) -> int:
        """Number of replicas, those of all workers together."""
        return self.strategy.num_replicas_in_sync

    @property
    def needs_static_shapes(self) -> bool:
        """Whether every batch must have one shape: TPUs compile for fixed shapes."""
        return self.is_tpu

    @property
    def names(self) -> tuple[str, ...]:
        """TensorFlow's names of this worker's devices, such as "/job:localhost/.../device:GPU:0"."""
        return tuple(self.strategy.extended.worker_devices)

    @property
    def kind(self) -> str:
        """What the devices are: "CPU", "GPU" or "TPU"."""
        return self.names[0].split(":")[-2]


def make_devices(name: str = "auto", *, cpu_replicas: int = 1, gpus: str = "all") -> Devices:
    """Chooses the devices; see `make_strategy` for the arguments and errors."""
    keep_freed_memory()  # before TensorFlow starts its threads
    return devices_of(make_strategy(name, cpu_replicas=cpu_replicas, gpus=gpus))


def devices_of(strategy: tf.distribute.Strategy) -> Devices:
    """Describes a strategy that was made already."""
    is_multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    return Devices(
        strategy=strategy,
        is_chief=not is_multi_worker or _is_chief(strategy.cluster_resolver),
        is_multi_worker=is_multi_worker,
        is_tpu=is_tpu,
        gpus=() if is_tpu else tuple(numbers_in_use()),
    )


def _is_chief(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> bool:
    """Whether this is the chief of the cluster: the task so named, or else worker 0."""
    if resolver.task_type in (None, "chief"):
        return True
    return (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )
