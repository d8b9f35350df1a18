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
    """Chooses the devices. Call it before any other TensorFlow operation.

    Args:
      name: "one_device" takes the first GPU or the CPU; "mirrored" all GPUs chosen on this machine, or
        `cpu_replicas` logical CPU devices where there is none; "multi_worker" what TF_CONFIG says,
        or without it SLURM; "tpu" the TPU of this TPU VM (or the one named by TPU_NAME); "auto" the
        last of these that this machine has, several workers only where TF_CONFIG names them.
      cpu_replicas: more than one are logical CPU devices, and no GPU is used; they share the machine's
        cores, so they test distribution rather than speed training up.
      gpus: of those of this machine, "all", numbers such as "0,2", or "idle": those that no process
        uses (see `engine.distribution.gpus`). Each worker chooses for itself; a TPU has none.

    Raises:
      ConfigurationError: unknown name, or devices that are not there.
    """
    # TensorFlow's remapper fuses a bias with its activation and its gradient. On the graph of a GAN it
    # breaks off with an error, changing nothing, and on an empty batch its result fails at run time.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    if name not in STRATEGIES:
        raise ConfigurationError(f"STRATEGY = {name!r}: unknown; use one of {', '.join(STRATEGIES)}")
    if cpu_replicas < 1:
        raise ConfigurationError(f"CPU_REPLICAS = {cpu_replicas}: at least 1")
    if name == "tpu" or (name == "auto" and _has_tpu()):
        return _tpu_strategy()
    chosen = chosen_gpus(gpus) if cpu_replicas == 1 else []
    if name == "auto":
        several = "mirrored" if max(len(chosen), cpu_replicas) > 1 else "one_device"
        name = "multi_worker" if worker_count() > 1 else several
    # TensorFlow makes itself at home on every GPU it sees, whether a strategy names it or not.
    use_gpus(chosen[:1] if name == "one_device" else chosen)
    if name == "multi_worker":
        if not worker_count():
            from_slurm = tf_config_of_slurm()
            if from_slurm is None:
                raise ConfigurationError(
                    "STRATEGY = 'multi_worker': the environment variable TF_CONFIG names no worker, and this "
                    "is no SLURM step of several tasks; set it on every worker, start the workers with "
                    "engine.launch, or use STRATEGY = 'auto'"
                )
            os.environ["TF_CONFIG"] = from_slurm
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = [f"GPU:{index}" for index in range(len(chosen))] or _cpu_devices(cpu_replicas)
    if name == "one_device" or len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    if devices[0].startswith("CPU"):
        # The default looks for NCCL links between GPUs, and logs that it found none.
        return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return tf.distribute.MirroredStrategy(devices)


def accelerators(gpus: str = "all") -> list[str]:
    """Names of the TPU cores that TensorFlow sees, or of the GPUs that the setting chooses."""
    return [device.name for device in physical_devices("TPU") or chosen_gpus(gpus)]


def _has_tpu() -> bool:
    return bool(os.environ.get("TPU_NAME") or physical_devices("TPU"))


def worker_count() -> int:
    """How many workers TF_CONFIG names, this one included; 0 without it."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except ValueError as error:
        raise ConfigurationError(f"TF_CONFIG is not JSON ({error}); correct or unset it") from error
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
            f"CPU_REPLICAS = {cpu_replicas}: TensorFlow has started with {available} CPU devices already; "
            "start a new process"
        )
    return [f"CPU:{index}" for index in range(cpu_replicas)]


def _tpu_strategy() -> tf.distribute.Strategy:
    # TensorFlow's own reading of TPU_NAME takes "local" for the name of a cloud TPU, so it is passed on.
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
