"""From a name to a `tf.distribute.Strategy`: one device, CPU replicas, GPUs, several workers or a TPU."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from engine.distribution.gpus import chosen_gpus, physical_devices, use_gpus
from engine.distribution.slurm import tf_config_of_slurm
from engine.errors import ConfigurationError

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str = "auto", *, cpu_replicas: int = 1, gpus: str = "all") -> tf.distribute.Strategy:
    """Makes a strategy. Call it before any other TensorFlow operation.

    Args:
      name: one of `STRATEGIES`. "one_device" uses the first GPU, or the CPU. "mirrored" uses all chosen GPUs
        of this machine, or `cpu_replicas` logical CPU devices if there is none. "multi_worker" uses the
        workers of TF_CONFIG, or those of the SLURM step. "tpu" uses the TPU of this TPU VM, or the one that
        TPU_NAME names. "auto" uses the last of these that is available, and several workers only if
        TF_CONFIG names them.
      cpu_replicas: more than one uses logical CPU devices and no GPU. They share the machine's cores, so they
        are for tests of distribution; they do not make training faster.
      gpus: which GPUs of this machine: "all", numbers such as "0,2", or "idle" for those that no process uses
        (see `engine.distribution.gpus`). Each worker chooses for itself. A TPU ignores it.

    Raises:
      ConfigurationError: the name is unknown, or the devices are not available.
    """
    # TensorFlow's remapper fuses a bias with its activation and its gradient. On the graph of a GAN it fails
    # ("Mutation::Apply error") and changes nothing; its fused operations fail on an empty batch.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    if name not in STRATEGIES:
        raise ConfigurationError(f"STRATEGY = {name!r}: unknown; use one of {', '.join(STRATEGIES)}")
    if cpu_replicas < 1:
        raise ConfigurationError(f"CPU_REPLICAS = {cpu_replicas}: must be at least 1; raise it")
    if name == "tpu" or (name == "auto" and _has_tpu()):
        return _tpu_strategy()
    chosen = chosen_gpus(gpus) if cpu_replicas == 1 else []
    if name == "auto":
        several = "mirrored" if max(len(chosen), cpu_replicas) > 1 else "one_device"
        name = "multi_worker" if worker_count() > 1 else several
    # TensorFlow allocates memory on every visible GPU, whether the strategy uses it or not.
    use_gpus(chosen[:1] if name == "one_device" else chosen)
    if name == "multi_worker":
        if not worker_count():
            from_slurm = tf_config_of_slurm()
            if from_slurm is None:
                raise ConfigurationError(
                    "STRATEGY = 'multi_worker': the environment variable TF_CONFIG names no worker, and this "
                    "is no SLURM step of several tasks; set TF_CONFIG on every worker, start the workers "
                    "with engine.launch, or use STRATEGY = 'auto'"
                )
            os.environ["TF_CONFIG"] = from_slurm
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = [f"GPU:{index}" for index in range(len(chosen))] or _cpu_devices(cpu_replicas)
    if name == "one_device" or len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    if devices[0].startswith("CPU"):
        # The default looks for NCCL links between GPUs and logs that it found none. Besides, its collectives
        # collide when a process makes several MirroredStrategy objects, as tests do.
        return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return tf.distribute.MirroredStrategy(devices)


def accelerators(gpus: str = "all") -> list[str]:
    """Names of the TPU cores that TensorFlow sees, or of the GPUs that the setting chooses."""
    return [device.name for device in physical_devices("TPU") or chosen_gpus(gpus)]


def _has_tpu() -> bool:
    # Listing TPUs makes TensorFlow list CUDA's devices too; `physical_devices` sets their order before that.
    return bool(os.environ.get("TPU_NAME") or physical_devices("TPU"))


def worker_count() -> int:
    """How many workers TF_CONFIG names, including this one; 0 if it is not set.

    Raises:
      ConfigurationError: TF_CONFIG is not JSON.
    """
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except ValueError as error:
        raise ConfigurationError(f"TF_CONFIG: not JSON ({error}); correct or unset it") from error
    return len(cluster.get("worker", [])) + len(cluster.get("chief", []))


def _cpu_devices(cpu_replicas: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if cpu_replicas > 1 and not tf.config.get_logical_device_configuration(cpu):
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_replicas
        )
    available = len(tf.config.list_logical_devices("CPU"))
    if available < cpu_replicas:
        raise ConfigurationError(
            f"CPU_REPLICAS = {cpu_replicas}: TensorFlow has already started with {available} CPU devices; "
            "start a new process"
        )
    return [f"CPU:{index}" for index in range(cpu_replicas)]


def _tpu_strategy() -> tf.distribute.Strategy:
    # Without an argument TPUClusterResolver reads TPU_NAME itself, and treats "local" as a cloud TPU's name.
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"STRATEGY = 'tpu': no TPU answers under the name {name!r} ({reason}); run on a TPU VM with the "
            "tpu extra installed, or use STRATEGY = 'auto'"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
