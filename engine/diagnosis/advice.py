"""Advice about precision and disks, only where it is sure."""

from __future__ import annotations

import os
import re

_SLOW_FILE_SYSTEMS = {
    "nfs": "NFS",
    "nfs4": "NFS",
    "cifs": "SMB",
    "smb3": "SMB",
    "fuse.sshfs": "sshfs",
    "9p": "9p",
    "davfs": "WebDAV",
    "fuse.davfs2": "WebDAV",
    "fuse.gcsfuse": "gcsfuse",
    "fuse.s3fs": "s3fs",
}
"""File systems over a network, by their type in /proc/mounts."""


def precision_advice(
    precision: str,
    *,
    kind: str,
    cpuinfo: str = "/proc/cpuinfo",
    compute_capabilities: tuple[tuple[int, int], ...] = (),
) -> list[str]:
    """What is sure about a precision on these devices.

    Args:
      precision: the setting.
      kind: of the run's devices: "CPU", "GPU" or "TPU".
      cpuinfo: the kernel's description of the processor.
      compute_capabilities: of the GPUs, such as (7, 0).
    """
    if kind == "CPU" and precision == "float32":
        flags = set(re.findall(r"\bavx512_bf16\b|\bamx_bf16\b", _read(cpuinfo)))
        if flags:
            return [
                f"this CPU has bfloat16 instructions ({', '.join(sorted(flags))}); "
                'PRECISION = "bfloat16" is faster on it'
            ]
    old = sorted({capability for capability in compute_capabilities if capability < (8, 0)})
    if kind == "GPU" and precision == "bfloat16" and old:
        return [
            f"a GPU of compute capability {old[0][0]}.{old[0][1]} has no bfloat16 (that came with 8.0); "
            'PRECISION = "float16" is faster on it'
        ]
    return []


def disk_advice(folder: str, *, mounts: str = "/proc/mounts", block: str = "/sys/block") -> list[str]:
    """Whether a folder is on a network or on a rotating disk.

    Args:
      folder: of the data; an object store or a missing folder gives no advice.
      mounts: the kernel's list of mounted file systems.
      block: the kernel's folder of block devices.
    """
    if "://" in folder or not os.path.isdir(folder):
        return []
    device, kind = _mount_of(os.path.realpath(folder), mounts)
    if kind in _SLOW_FILE_SYSTEMS:
        return [
            f"{folder} is on a network file system ({_SLOW_FILE_SYSTEMS[kind]}); copy the data to a local "
            "disk if the log says that training waits for data"
        ]
    name = os.path.basename(os.path.realpath(device)) if device.startswith("/dev/") else ""
    for disk in _listed(block):
        is_on_it = name == disk or os.path.isdir(os.path.join(block, disk, name))
        if name and is_on_it and _read(os.path.join(block, disk, "queue", "rotational")).strip() == "1":
            # Virtual disks of hypervisors call themselves rotational whatever they are on.
            if disk.startswith(("vd", "xvd", "loop", "zram", "ram")):
                return []
            return [
                f"{folder} is on a rotating disk ({disk}); an SSD, or the setting supply.Supply.cache, reads "
                "small images in random order many times faster"
            ]
    return []


def _mount_of(path: str, mounts: str) -> tuple[str, str]:
    """(device, type) of the file system that holds a path; the last one mounted wins."""
    found, longest = ("", ""), -1
    for line in _read(mounts).splitlines():
        device, point, kind = line.split()[:3]
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point)
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= longest:
            found, longest = (device, kind), len(point)
    return found


def _listed(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
