"""One process trains in a run directory at a time.

On a disk, the file RUN/lock is locked by the operating system, which frees it however the process ends. Where
files cannot be locked, as in an object store, the file is a lease: its owner renews it every few seconds, and
another process may take it once it has not been renewed for a while.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import IO, Any

import tensorflow as tf

from data import gfile
from engine.errors import ConfigurationError
from engine.storage.atomic_files import write_text
from engine.storage.file_errors import reraise_write_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RENEW_SEC = 10.0
"""How often a lease is renewed."""
EXPIRE_SEC = 45.0
"""A lease that was not renewed for so long belongs to nobody: its process is dead or suspended."""
SETTLE_SEC = 1.0
"""After writing its lease, a process waits so long before it reads whether another wrote over it."""

_CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class RunInUseError(ConfigurationError):
    """Another process holds the lock."""


class RunLock:
    """The right to write a run; see `hold`."""

    def __init__(self, path: str):
        self._path = path
        self._lost_to: str | None = None

    def check(self) -> None:
        """Raises if another process has taken the run over.

        This happens to a lease whose process was suspended, or could not reach the store, for longer than
        `EXPIRE_SEC`.

        Raises:
          ConfigurationError: names the other process.
        """
        if self._lost_to is not None:
            raise ConfigurationError(
                f"{self._path}: this process was suspended or could not write there for {EXPIRE_SEC:.0f} s, "
                f"and {self._lost_to} has taken over the run; let that process go on"
            )

    def lost(self, owner: str) -> None:
        """Records that another process owns the run now."""
        self._lost_to = owner


@contextlib.contextmanager
def hold(path: str, *, what: str) -> Iterator[RunLock]:
    """Holds the lock of a run as long as the block runs.

    Args:
      path: of the lock file.
      what: the flag that set the run directory, for the message.

    Yields:
      The lock, to be checked from time to time.

    Raises:
      RunInUseError: another process holds it.
      ConfigurationError: the file cannot be written.
    """
    try:
        file = _lock_file(path, what)
    except BlockingIOError:
        raise RunInUseError(_refusal(what, _read(path))) from None
    if file is None:
        with _lease(path, what) as lock:
            yield lock
        return
    try:
        yield RunLock(path)
    finally:
        # The file stays: were it removed, a process that has opened it would lock a file that no other sees.
        with contextlib.suppress(OSError), file:  # such as a full disk; closing frees the lock
            file.truncate(0)


def living_owner(path: str) -> str | None:
    """The process that a lock file names, such as "process 12 on host"; None if it is known to have ended.

    This only reads: a process that looks never gets in the way of one that is about to lock.
    """
    owner = _read(path)
    return None if not owner or _is_dead_here(owner) else _name(owner)


def _lock_file(path: str, what: str) -> IO[str] | None:
    """The open and locked file; None if files cannot be locked there.

    Raises:
      BlockingIOError: another process has locked it.
      ConfigurationError: it cannot be written.
    """
    if gfile.is_url(path) or fcntl is None:
        return None
    with reraise_write_errors(what, remedy="choose a directory you may write to"):
        file = open(path, "a", encoding="utf-8")  # "a", as the contents may be another's
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in _CANNOT_LOCK:
            return None
        raise
    try:
        with reraise_write_errors(what, remedy="make room there, or choose another directory"):
            file.truncate(0)
            file.write(json.dumps(_owner()) + "\n")
            file.flush()
    except ConfigurationError:
        with contextlib.suppress(OSError):  # closing writes again
            file.close()
        raise
    return file


@contextlib.contextmanager
def _lease(path: str, what: str) -> Iterator[RunLock]:
    mine = _owner() | {"token": uuid.uuid4().hex}
    other = _wait_until_free(path)
    if other is None:
        write_text(path, json.dumps(mine | {"renewed": 0}) + "\n")
        time.sleep(SETTLE_SEC)
        other = _other_owner(path, mine["token"])
    if other is not None:
        raise RunInUseError(_refusal(what, other))
    lock, stopped = RunLock(path), threading.Event()
    renewer = threading.Thread(target=_renew, args=(path, mine, lock, stopped), daemon=True)
    renewer.start()
    try:
        yield lock
    finally:
        stopped.set()
        renewer.join()
        if _other_owner(path, mine["token"]) is None:
            with contextlib.suppress(tf.errors.OpError):  # an unreachable store; the lease expires
                tf.io.gfile.remove(path)


def _wait_until_free(path: str) -> dict[str, Any] | None:
    """Waits until a lease is released or expires; returns its owner if it is renewed instead.

    Only changes of the file count: the clocks of two machines may differ.
    """
    first = _read(path)
    if not first or _is_dead_here(first):
        return None
    print(
        f"{path}: held by {_name(first)}; waiting up to {EXPIRE_SEC:.0f} s to see whether it still runs",
        flush=True,
    )
    until = time.monotonic() + EXPIRE_SEC
    while time.monotonic() < until:
        time.sleep(min(1.0, RENEW_SEC))
        now = _read(path)
        if not now:
            return None
        if now != first:
            return now
    return None


def _renew(path: str, mine: dict[str, Any], lock: RunLock, stopped: threading.Event) -> None:
    count = 0
    while not stopped.wait(RENEW_SEC):
        try:
            other = _other_owner(path, mine["token"])
            if other is not None:
                lock.lost(_name(other))
                return
            count += 1
            write_text(path, json.dumps(mine | {"renewed": count}) + "\n")
        except (ConfigurationError, OSError, tf.errors.OpError):
            continue  # the store may come back; if another takes the lease meanwhile, the next turn sees it


def _other_owner(path: str, token: str) -> dict[str, Any] | None:
    owner = _read(path)
    return owner if owner and owner.get("token") != token else None


def _read(path: str) -> dict[str, Any]:
    """What a lock file says about its owner; empty if there is none, or only a part of it."""
    try:
        with gfile.open_binary(path) as file:
            owner = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _owner() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _name(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} (started {owner.get('started')})"


def _refusal(what: str, owner: dict[str, Any]) -> str:
    return (
        f"{what}: {_name(owner)} is training there; stop it or wait for its end, or choose another --workdir"
    )


def _is_dead_here(owner: dict[str, Any]) -> bool:
    """Whether the owner ran on this machine, since its last start, and runs no more."""
    if not owner.get("boot") or (owner.get("host"), owner["boot"]) != (socket.gethostname(), _boot_id()):
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, ValueError):
        pass
    return False


def _boot_id() -> str:
    """Names this start of the machine, and the container in it: process ids mean nothing in another."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
