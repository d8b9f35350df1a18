"""From a name to a `tf.distribute.Strategy`: one device, CPU replicas, GPUs, several workers or a TPU."""

from __future__ import annotations

import json
import os

import keras
import tensorflow as tf

from engine.slurm import tf_config_of_slurm
from engine.task import ConfigurationError

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
PRECISIONS = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
    "float64": "float64",
}


def set_precision(precision: str) -> None:
    """Sets Keras's policy; call it before a network is built.

    "bfloat16" and "float16" compute in these and keep variables in float32; with "float16" losses are
    scaled, see `engine.loss_scale`.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(
            f"PRECISION = {precision!r}: not available; use one of {', '.join(PRECISIONS)}"
        )
    keras.config.set_dtype_policy(PRECISIONS[precision])
    keras.config.set_floatx("float64" if precision == "float64" else "float32")


def make_strategy(name: str = "auto", *, cpu_replicas: int = 1) -> tf.distribute.Strategy:
    """Chooses the devices. Call it before any other TensorFlow operation.

    Args:
      name: "one_device" takes the first GPU or the CPU; "mirrored" all GPUs of this machine, or
        `cpu_replicas` logical CPU devices where there is none; "multi_worker" what TF_CONFIG says,
        or without it SLURM; "tpu" the TPU of this TPU VM (or the one named by TPU_NAME); "auto" the
        last of these that this machine has, several workers only where TF_CONFIG names them.
      cpu_replicas: replicas on a machine without accelerators; they share its cores, so they test
        distribution rather than speed training up.

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
    if name == "auto":
        name = _detect(cpu_replicas)
    if name == "tpu":
        return _tpu_strategy()
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
    devices = _local_devices(cpu_replicas)
    if name == "one_device" or len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    if devices[0].startswith("CPU"):
        # The default looks for NCCL links between GPUs, and logs that it found none.
        return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return tf.distribute.MirroredStrategy(devices)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes logs and checkpoints."""
    resolver = strategy.cluster_resolver
    if resolver is None or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    return resolver.task_type in (None, "chief") or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )


def smallest_of_workers(strategy: tf.distribute.Strategy, number):
    """The smallest of the numbers that the workers bring; `number` itself with one worker, or if None."""
    if not isinstance(number, int) or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return number

    @tf.function(autograph=False)  # TensorFlow warns of eager collectives
    def gathered():
        own = strategy.run(lambda: tf.identity(tf.constant([number])))
        return strategy.gather(own, axis=0)

    return int(tf.reduce_min(gathered()))


def accelerators() -> list[str]:
    """Names of the GPUs and TPU cores that TensorFlow sees."""
    return [device.name for kind in ("GPU", "TPU") for device in tf.config.list_physical_devices(kind)]


def _detect(cpu_replicas: int) -> str:
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    if worker_count() > 1:
        return "multi_worker"
    several = len(tf.config.list_physical_devices("GPU")) > 1 or cpu_replicas > 1
    return "mirrored" if several else "one_device"


def worker_count() -> int:
    """How many workers TF_CONFIG names, this one included; 0 without it."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except ValueError as error:
        raise ConfigurationError(f"TF_CONFIG is not JSON ({error}); correct or unset it") from error
    return len(cluster.get("worker", [])) + len(cluster.get("chief", []))


def _local_devices(cpu_replicas: int) -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and cpu_replicas == 1:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        return [f"GPU:{index}" for index in range(len(gpus))]
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
