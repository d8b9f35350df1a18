"""What a machine without a network needs: the pinned packages, and the files of the project.

A lock is made for every platform: some packages are for some systems only. pip decides that by the system on
which it runs, so the packages for the target are chosen here before pip downloads them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import Marker, default_environment

from engine.cloud.tpu_job import git
from engine.errors import ConfigurationError
from engine.packing.run_files import Source
from engine.storage.file_errors import reraise_write_errors

LOCKS = ("cpu", "gpu", "tpu")
PYTHONS = ("3.11", "3.12", "3.13")

WHEELS, CHECKOUT = "wheels", "gantry"
"""Folders of a packed run."""

REQUIREMENTS = "requirements.lock"
"""In the folder of the wheels: the packages in it, with their digests."""

_PACKAGES = ("engine", "data", "models", "gin")
_TOP_LEVEL = re.compile(r"pyproject\.toml|Makefile|.+\.md|requirements-\w+\.lock")
_PIN = re.compile(r"^(?=[A-Za-z0-9][\w.-]*(?:\[[^\]]*\])?==)", re.MULTILINE)
_NEWEST_GLIBC = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # 2.5, ...


def download_wheels(
    lock: str, folder: str, *, python_version: str | None = None, platform: str | None = None
) -> None:
    """Downloads the packages of a lock, whose digests pip checks, from the index that pip is configured for.

    One package of the locks has no wheel; what it takes to build one is in the locks too.

    Args:
      lock: path of the lock.
      folder: gets the files.
      python_version: of the machine that will install them, such as "3.12"; None is that of this process.
      platform: its tag, such as "manylinux_2_31_x86_64", "macosx_12_0_arm64" or "win_amd64"; None is this
        machine's.

    Raises:
      ConfigurationError: pip is missing, or cannot download a package.
    """
    environment = target_environment(python_version, platform)
    with open(lock, encoding="utf-8") as file:
        pins = pins_for(file.read(), environment)
    choice = [] if python_version is None else [f"--python-version={python_version}", "--implementation=cp"]
    choice += [f"--platform={tag}" for tag in ([] if platform is None else compatible_platforms(platform))]
    requirements = os.path.join(folder, REQUIREMENTS)
    with reraise_write_errors(folder, remedy="make room there, or name a larger folder with TMPDIR"):
        Path(requirements).write_text(pins, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", f"--requirement={requirements}", f"--dest={folder}", *choice]
    command += [] if sys.stdout.isatty() else ["--quiet"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise ConfigurationError(f"--wheels: {_reason(done.stderr)}")


def pins_for(lock: str, environment: dict[str, str]) -> str:
    """The pins of a lock that an environment needs, with their digests and without their conditions.

    Args:
      lock: its text.
      environment: the values of markers, as of `target_environment`.
    """
    chosen = []
    for pin in _PIN.split(lock)[1:]:
        first, _, rest = pin.partition("\n")
        name, _, marker = first.removesuffix("\\").partition(";")
        if not marker.strip() or Marker(marker.strip()).evaluate(environment):
            chosen.append(f"{name.strip()} \\\n{rest}")
    return "".join(chosen)


def target_environment(python_version: str | None, platform: str | None) -> dict[str, str]:
    """The values of the markers of requirements on a machine.

    Args:
      python_version: as of `download_wheels`.
      platform: as of `download_wheels`.

    Raises:
      ConfigurationError: the locks are not for such a Python or platform.
    """
    environment = {name: str(value) for name, value in default_environment().items()}
    if python_version is not None:
        if python_version not in PYTHONS:
            raise ConfigurationError(
                f"--python_version={python_version}: the locks are for Python {', '.join(PYTHONS)}"
            )
        environment |= {"python_version": python_version, "python_full_version": f"{python_version}.0"}
    if platform is None:
        return environment
    for pattern, sys_platform, system, os_name in (
        (r"(?:manylinux\w*?|linux)_(x86_64|aarch64)", "linux", "Linux", "posix"),
        (r"macosx_\d+_\d+_(x86_64|arm64)", "darwin", "Darwin", "posix"),
        (r"win_(amd64|arm64)", "win32", "Windows", "nt"),
    ):
        if match := re.fullmatch(pattern, platform):
            machine = match[1].upper() if system == "Windows" else match[1]
            return environment | {
                "sys_platform": sys_platform,
                "platform_system": system,
                "os_name": os_name,
                "platform_machine": machine,
            }
    raise ConfigurationError(
        f"--platform={platform}: not known; use manylinux_2_31_x86_64, macosx_12_0_arm64 or win_amd64"
    )


def compatible_platforms(platform: str) -> list[str]:
    """The tags of wheels that a platform runs: also those for an older glibc, which pip does not add."""
    match = re.fullmatch(r"(manylinux1|manylinux2010|manylinux2014|manylinux_2_(\d+))_(\w+)", platform)
    if not match:
        return [platform]
    newest = int(match[2]) if match[2] else _NEWEST_GLIBC[match[1]]
    tags = [f"manylinux_2_{minor}" for minor in range(newest, 4, -1)]
    tags += [name for name, minor in _NEWEST_GLIBC.items() if minor <= newest]
    return [f"{tag}_{match[3]}" for tag in tags]


def wheel_sources(folder: str) -> list[Source]:
    """The downloaded files, as files to pack."""
    return [
        Source(name=f"{WHEELS}/{name}", path=os.path.join(folder, name))
        for name in sorted(os.listdir(folder))
    ]


def checkout_sources(checkout: str) -> list[Source]:
    """The files of the project, as files to pack.

    They are those that git tracks, as they are now, with uncommitted changes. Without git, they are the
    packages, the gin files and what stands beside them.
    """
    tracked = [name for name in git(Path(checkout), "ls-files", "-z").split("\0") if name]
    names = tracked or _found(checkout)
    paths = [(name, os.path.join(checkout, name)) for name in names]
    return [
        Source(name=f"{CHECKOUT}/{name}", path=path)
        for name, path in paths
        if os.path.isfile(path) and not os.path.islink(path)
    ]


def untracked_files(checkout: str) -> Sequence[str]:
    """The files of a checkout that git neither tracks nor ignores, so that they are not packed."""
    return git(Path(checkout), "ls-files", "--others", "--exclude-standard").splitlines()


def _found(checkout: str) -> list[str]:
    names = [name for name in sorted(os.listdir(checkout)) if _TOP_LEVEL.fullmatch(name)]
    for package in _PACKAGES:
        for folder, folders, files in os.walk(os.path.join(checkout, package)):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            below = os.path.relpath(folder, checkout).replace(os.sep, "/")
            names += [f"{below}/{name}" for name in sorted(files)]
    return names


def _reason(errors: str) -> str:
    """What pip says about a failure, as the end of a line."""
    if "No module named pip" in errors:
        return f"{sys.executable} has no pip; install it with {sys.executable} -m ensurepip"
    lines = [line.removeprefix("ERROR: ") for line in errors.splitlines() if line.startswith("ERROR: ")]
    reason = lines[-1] if lines else (errors.strip().splitlines() or ["pip failed"])[-1]
    return f"pip cannot download the packages ({reason[:300]}); check the network and --python_version"
