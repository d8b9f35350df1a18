"""Which GPUs of this machine a process uses: all, those that are named, or those that nobody else uses.

Numbers are those of nvidia-smi: CUDA is told to count by PCI address as well, unless CUDA_DEVICE_ORDER is
set already. Where CUDA_VISIBLE_DEVICES is set, as batch systems and containers do, CUDA shows only what it
names, and numbers count among those, as for every CUDA program.

Written from the manuals of nvidia-smi and CUDA; it has not run on a machine with a GPU.
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
"""Memory in use on a GPU that counts as idle: a driver and a desktop take less, a training takes more."""

IDLE_BELOW_PERCENT = 5
"""Utilisation of a GPU that counts as idle."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuUse:
    """How much of a GPU is in use by all processes together.

    Args:
      number: nvidia-smi's.
      uuid: "GPU-..."; does not depend on any order.
      used_mib: memory; None if the driver does not tell.
      percent: time in which it computed lately; None if the driver does not tell.
    """

    number: int
    uuid: str
    used_mib: int | None
    percent: int | None

    @property
    def is_idle(self) -> bool:
        """Not known to be idle is busy."""
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
    """The numbers in a setting such as "0,2"; None for "all" and "idle".

    Raises:
      ConfigurationError: it is none of these.
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
    """The devices of a kind that this process may use; asking takes nothing of them."""
    # CUDA's own order is fastest first. It reads this once, when any kind of device is first asked for.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return tf.config.list_physical_devices(kind)


def chosen_gpus(setting: str) -> list[tf.config.PhysicalDevice]:
    """The GPUs that the setting names; none where "all" meets a machine without.

    Raises:
      ConfigurationError: they are not there, none is idle, or who uses them cannot be found out.
    """
    numbers, gpus = numbers_of(setting), physical_devices("GPU")
    if setting == "all":
        return gpus
    if not gpus:
        raise ConfigurationError(
            f"GPUS = {setting!r}: TensorFlow finds no GPU on this machine{_hidden()}; python -m "
            "engine.doctor lists what there is, and GPUS = 'all' also runs without one"
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
    """Shows TensorFlow these GPUs only, and has it take their memory as it needs it.

    Raises:
      ConfigurationError: TensorFlow has started with others.
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
    """The numbers of the GPUs that `use_gpus` was given."""
    gpus = physical_devices("GPU")
    return [gpus.index(gpu) for gpu in tf.config.get_visible_devices("GPU")]


def nvidia_smi_ids() -> list[str]:
    """What nvidia-smi calls each GPU that CUDA shows, in their order: a number or a UUID."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(physical_devices("GPU"))
    if visible is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in visible.split(",")][:count]


def gpu_uses() -> list[GpuUse]:
    """How much of each GPU that CUDA shows is in use, in their order.

    Raises:
      ConfigurationError: nvidia-smi is missing or fails, or its numbers cannot be related to CUDA's.
    """
    if shutil.which("nvidia-smi") is None:
        raise ConfigurationError(
            "GPUS = 'idle': there is no nvidia-smi on the PATH to ask who uses them; install NVIDIA's "
            "utilities (in a container: --gpus=all), or name GPUs, such as GPUS = '0'"
        )
    done = _ask_nvidia_smi("index,uuid,memory.used,utilization.gpu")
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not all(len(row) == 4 and row[0].isdigit() for row in rows):
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise ConfigurationError(
            f"GPUS = 'idle': nvidia-smi fails ({said.splitlines()[0]}); mend the driver, or name GPUs, "
            "such as GPUS = '0'"
        )
    all_uses = [
        GpuUse(number=int(number), uuid=uuid, used_mib=_number(used), percent=_number(percent))
        for number, uuid, used, percent in rows
    ]
    return [_of_name(name, all_uses) for name in nvidia_smi_ids()]


def free_gpu_bytes(device: str) -> int | None:
    """Free memory of an NVIDIA GPU as its driver sees it; None if unknown.

    Args:
      device: TensorFlow's name of it, ending in "GPU:0"; it counts among those given to `use_gpus`.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    number = numbers_in_use()[int(device.rpartition(":")[2])]
    done = _ask_nvidia_smi("memory.total,memory.used", f"--id={nvidia_smi_ids()[number]}")
    numbers = re.fullmatch(r"\s*(\d+),\s*(\d+)\s*", done.stdout)
    return (int(numbers[1]) - int(numbers[2])) * 2**20 if numbers else None


@functools.cache  # what this process takes itself must not count when a trainer is built again
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
            f"GPUS = 'idle': none is ({'; '.join(f'{n}: {use}' for n, use in enumerate(uses))}); wait, or "
            "name those to share, such as GPUS = '0'"
        )
    return idle


def _ask_nvidia_smi(fields: str, *options: str) -> subprocess.CompletedProcess:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _of_name(name: str, uses: list[GpuUse]) -> GpuUse:
    """Of a number or of a UUID, of which CUDA takes any beginning that is unique."""
    found = [
        use for use in uses if (use.number == int(name) if name.isdigit() else use.uuid.startswith(name))
    ]
    if len(found) != 1:
        raise ConfigurationError(
            f"GPUS = 'idle': nvidia-smi tells nothing of {name!r} in CUDA_VISIBLE_DEVICES; name whole GPUs "
            "there by number or UUID, or set GPUS = 'all'"
        )
    return found[0]


def _number(field: str) -> int | None:
    """None for "[N/A]" and its like."""
    return int(field) if field.isdigit() else None


def _hidden() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"
