"""Which processes hold the accelerators of this machine, as the kernel knows it.

A process holds a GPU or TPU while it has its device file open. That includes processes that nvidia-smi does
not list, such as those of other containers, and those that hang after their work. Nothing is changed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Sequence

from engine.diagnosis.run_time import duration

_DEVICES = re.compile(r"/dev/(nvidia\d+|accel\d+|accel/accel\d+|kfd|vfio/\d+)")
"""NVIDIA's GPUs, TPUs (accel, or vfio from v5e on), AMD's GPUs. /dev/nvidiactl and the like hold no GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AcceleratorUser:
    """A process with device files open.

    Attributes:
      pid: of the process.
      user: its name, or its number if it has none here.
      command: command line.
      since_sec: seconds since the process started; None if unknown.
      devices: the device files.
    """

    pid: int
    user: str
    command: str
    since_sec: float | None
    devices: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was found.

    Attributes:
      users: in order of their numbers.
      unreadable: number of processes whose open files this user may not list.
    """

    users: tuple[AcceleratorUser, ...]
    unreadable: int


def find_users(proc: str = "/proc") -> Found:
    """Looks at the open files of every process.

    Args:
      proc: where the kernel shows its processes; elsewhere than on Linux there is no such place, and nothing
        is found.
    """
    users, unreadable = [], 0
    for pid in sorted(int(name) for name in _listed(proc) if name.isdigit()):
        try:
            devices = _open_devices(os.path.join(proc, str(pid), "fd"))
        except PermissionError:
            unreadable += 1
            continue
        except OSError:  # it has ended
            continue
        if devices:
            users.append(_describe(proc, pid, devices))
    return Found(users=tuple(users), unreadable=unreadable)


def user_lines(found: Found) -> list[str]:
    """The result as text, one process a line."""
    lines = []
    for user in found.users:
        since = "" if user.since_sec is None else f", for {duration(user.since_sec)}"
        lines.append(
            f"  process {user.pid} of {user.user}{since}: {', '.join(user.devices)}: {user.command[:60]}"
        )
    if lines:
        lines.insert(0, "Processes that hold accelerators:")
    if found.unreadable:
        lines.append(
            f"Open files of {found.unreadable} process{'es' * (found.unreadable > 1)} could not be read; "
            "they may hold accelerators too"
        )
    return lines


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _open_devices(folder: str) -> tuple[str, ...]:
    devices = set()
    for name in os.listdir(folder):
        try:
            target = os.readlink(os.path.join(folder, name))
        except FileNotFoundError:  # closed since
            continue
        # A device file that was removed and made anew, as by a reinstalled driver, ends with " (deleted)".
        if _DEVICES.fullmatch(target.removesuffix(" (deleted)")):
            devices.add(target)
    return tuple(sorted(devices))


def _describe(proc: str, pid: int, devices: Sequence[str]) -> AcceleratorUser:
    folder = os.path.join(proc, str(pid))
    arguments = _read(os.path.join(folder, "cmdline")).replace("\0", " ").strip()
    owner = re.search(r"^Uid:\s+(\d+)", _read(os.path.join(folder, "status")), re.MULTILINE)
    return AcceleratorUser(
        pid=pid,
        user=_user_name(int(owner[1])) if owner else "unknown",
        command=arguments or _read(os.path.join(folder, "comm")).strip() or "unknown",
        since_sec=_running_sec(proc, folder),
        devices=tuple(devices),
    )


def _running_sec(proc: str, folder: str) -> float | None:
    """Seconds since a process started: field 22 of its stat, proc(5), in clock ticks after the boot."""
    booted = re.search(r"^btime (\d+)", _read(os.path.join(proc, "stat")), re.MULTILINE)
    fields = _read(os.path.join(folder, "stat")).rpartition(")")[2].split()  # a name may contain spaces
    if not booted or len(fields) < 20:
        return None
    return time.time() - int(booted[1]) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:  # it has ended, or is hidden
        return ""


def _user_name(number: int) -> str:
    try:
        import pwd  # Windows has none, and no /proc

        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
