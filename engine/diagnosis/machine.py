"""Versions, devices and memory of this machine."""

from __future__ import annotations

import importlib.metadata
import platform

import psutil
import tensorflow as tf

from engine.distribution.gpus import gpu_uses, physical_devices
from engine.distribution.precision import PRECISIONS
from engine.distribution.strategies import accelerators
from engine.errors import ConfigurationError

_PACKAGES = ("keras", "numpy", "tensorflow-datasets", "gin-config", "absl-py", "tensorboard")


def machine_report() -> str:
    """Versions, devices and memory of this machine, as text."""
    found = accelerators()
    versions = [f"{name} {_version(name)}" for name in _PACKAGES]
    memory = psutil.virtual_memory()
    lines = [
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, {', '.join(versions)}",
        f"CPU cores: {psutil.cpu_count()}, host memory: {memory.total / 2**30:.1f} GiB, of which "
        f"{memory.available / 2**30:.1f} GiB available",
        f"Number of accelerators: {len(found)}",
        *(_gpu_lines() or (f"  {name}" for name in found)),
        f"Precisions: {', '.join(PRECISIONS)}",
    ]
    return "\n".join(lines)


def _gpu_lines() -> list[str]:
    """Each GPU with its number in the setting GPUS, and how much of it is in use."""
    gpus = physical_devices("GPU")
    try:
        uses = [f"{use}{', idle' if use.is_idle else ''}" for use in (gpu_uses() if gpus else [])]
    except ConfigurationError:  # only GPUS = "idle" needs it
        uses = ["use unknown"] * len(gpus)
    return [
        f"  {number}: {gpu.name}, {use}" for number, (gpu, use) in enumerate(zip(gpus, uses, strict=True))
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
