"""Which GPUs of this machine a process uses: all, those with given numbers, or the idle ones.

Numbers are nvidia-smi's, which counts by PCI address. CUDA counts fastest first by default, so
CUDA_DEVICE_ORDER is set to PCI_BUS_ID unless it is set already. If CUDA_VISIBLE_DEVICES is set, as batch
systems and containers do, CUDA shows only the GPUs named there, and numbers are places in that list, as in
every CUDA program.

This follows the manuals of nvidia-smi and CUDA; it has not run on a machine with a GPU.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence

import tensorflow as tf

from engine.errors import ConfigurationError

IDLE_BELOW_MIB = 500
"""A GPU with less memory in use may be idle: a driver and a desktop need less, a training needs more."""

IDLE_BELOW_PERCENT = 5
"""A GPU with less utilisation in percent may be idle."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuUse:
    """How much all processes together use of a GPU.

    Attributes:
      number: nvidia-smi's index.
      uuid: "GPU-..."; does not depend on the order of the GPUs.
      used_mib: memory in use; None if the driver does not report it.
      percent: utilisation, the share of recent time in which the GPU computed; None if the driver does not
        report it.
    """

    number: int
    uuid: str
    used_mib: int | None
    percent: int | None

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses the GPU. One whose memory use is unknown counts as busy."""
        return (
            self.used_mib is not None
            and self.used_mib < IDLE_BELOW_MIB
            and (self.percent or 0) < IDLE_BELOW_PERCENT
        )

    def __str__(self) -> str:
        memory = "unknown" if self.used_mib is None else f"{self.used_mib} MiB"
        percent = "" if self.percent is None else f", {self.percent} % busy"
        return f"{memory} in use{percent}"


def numbers_of(setting: str) -> tuple[int, ...] | None:
    """Reads the numbers in a setting such as "0,2".

    Returns:
      The numbers; None for "all" and "idle".

    Raises:
      ConfigurationError: the setting is none of these.
    """
    if setting in ("all", "idle"):
        return None
    numbers = [part.strip() for part in setting.split(",")]
    if not all(re.fullmatch(r"[0-9]+", number) for number in numbers) or len(set(numbers)) < len(numbers):
        raise ConfigurationError(
            f"GPUS = {setting!r}: write 'all', 'idle', or different numbers of nvidia-smi such as '0,2'"
        )
    return tuple(int(number) for number in numbers)


def physical_devices(kind: str) -> list[tf.config.PhysicalDevice]:
    """The devices of a kind that this process may use. Listing them does not initialise them."""
    # CUDA reads the variable once, when devices are first listed. TensorFlow asks CUDA even for TPUs.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return tf.config.list_physical_devices(kind)


def chosen_gpus(setting: str) -> list[tf.config.PhysicalDevice]:
    """The GPUs that a setting chooses; an empty list for "all" on a machine without GPUs.

    Args:
      setting: "all", "idle", or numbers such as "0,2".

    Raises:
      ConfigurationError: there are no such GPUs, none is idle, or nvidia-smi cannot say which are.
    """
    numbers, gpus = numbers_of(setting), physical_devices("GPU")
    if setting == "all":
        return gpus
    if not gpus:
        raise ConfigurationError(
            f"GPUS = {setting!r}: TensorFlow finds no GPU on this machine{_hidden()}; python -m "
            "engine.doctor lists the devices, and GPUS = 'all' also runs without a GPU"
        )
    if numbers is None:
        numbers = _idle_numbers()
    for number in numbers:
        if number >= len(gpus):
            raise ConfigurationError(
                f"GPUS = {setting!r}: there is no GPU {number}{_hidden()}; choose among "
                f"{', '.join(map(str, range(len(gpus))))}"
            )
    return [gpus[number] for number in numbers]


def use_gpus(gpus: Sequence[tf.config.PhysicalDevice]) -> None:
    """Hides all other GPUs from TensorFlow, and lets it allocate memory on these as it needs it.

    Args:
      gpus: of `physical_devices("GPU")`.

    Raises:
      ConfigurationError: TensorFlow has already started with other GPUs.
    """
    if not physical_devices("GPU"):
        return
    try:
        tf.config.set_visible_devices(list(gpus), "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise ConfigurationError(
            "GPUS: TensorFlow has started with other GPUs in this process; start a new one, or choose "
            "devices before any other TensorFlow operation"
        ) from error


def numbers_in_use() -> list[int]:
    """The numbers of the GPUs that TensorFlow uses, in its order."""
    gpus = physical_devices("GPU")
    return [gpus.index(gpu) for gpu in tf.config.get_visible_devices("GPU")]


def nvidia_smi_ids() -> list[str]:
    """What nvidia-smi calls each GPU that CUDA shows, in CUDA's order: a number or a UUID."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(physical_devices("GPU"))
    if visible is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in visible.split(",")][:count]


def gpu_uses() -> list[GpuUse]:
    """The use of each GPU that CUDA shows, in CUDA's order.

    Raises:
      ConfigurationError: nvidia-smi is missing or fails, or does not list a GPU that CUDA shows.
    """
    if shutil.which("nvidia-smi") is None:
        raise ConfigurationError(
            "GPUS = 'idle': nvidia-smi, which says which GPUs are idle, is not on the PATH; install NVIDIA's "
            "utilities (in a container: --gpus=all), or name GPUs, such as GPUS = '0'"
        )
    done = _ask_nvidia_smi("index,uuid,memory.used,utilization.gpu")
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not all(len(row) == 4 and row[0].isdigit() for row in rows):
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise ConfigurationError(
            f"GPUS = 'idle': nvidia-smi fails ({said.splitlines()[0]}); repair the driver, or name GPUs, "
            "such as GPUS = '0'"
        )
    all_uses = [
        GpuUse(number=int(number), uuid=uuid, used_mib=_number(used), percent=_number(percent))
        for number, uuid, used, percent in rows
    ]
    return [_of_name(name, all_uses) for name in nvidia_smi_ids()]


def free_gpu_bytes(device: str) -> int | None:
    """Free memory of an NVIDIA GPU as its driver reports it; None if unknown.

    Args:
      device: TensorFlow's name of the GPU, ending in "GPU:0"; it counts among the GPUs in use.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    number = numbers_in_use()[int(device.rpartition(":")[2])]
    done = _ask_nvidia_smi("memory.total,memory.used", f"--id={nvidia_smi_ids()[number]}")
    numbers = re.fullmatch(r"\s*(\d+),\s*(\d+)\s*", done.stdout)
    return (int(numbers[1]) - int(numbers[2])) * 2**20 if numbers else None


@functools.cache  # a later trainer must not see this process's own use as another's
def _idle_numbers() -> tuple[int, ...]:
    if os.environ["CUDA_DEVICE_ORDER"] != "PCI_BUS_ID":
        raise ConfigurationError(
            f"GPUS = 'idle': CUDA_DEVICE_ORDER is {os.environ['CUDA_DEVICE_ORDER']}, so CUDA's numbers are "
            "not nvidia-smi's; unset it, or set it to PCI_BUS_ID"
        )
    uses = gpu_uses()
    idle = tuple(position for position, use in enumerate(uses) if use.is_idle)
    if not idle:
        raise ConfigurationError(
            f"GPUS = 'idle': no GPU is idle ({'; '.join(f'{n}: {use}' for n, use in enumerate(uses))}); "
            "wait, or name the GPUs to share, such as GPUS = '0'"
        )
    return idle


def _ask_nvidia_smi(fields: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _of_name(name: str, uses: list[GpuUse]) -> GpuUse:
    """Finds a GPU by its number or by the beginning of its UUID, as CUDA does."""
    found = [
        use for use in uses if (use.number == int(name) if name.isdigit() else use.uuid.startswith(name))
    ]
    if len(found) != 1:
        raise ConfigurationError(
            f"GPUS = 'idle': nvidia-smi does not list {name!r} of CUDA_VISIBLE_DEVICES; name whole "
            "GPUs there by number or UUID, or set GPUS = 'all'"
        )
    return found[0]


def _number(field: str) -> int | None:
    """The number in a field; None for "[N/A]" and the like."""
    return int(field) if field.isdigit() else None


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"
