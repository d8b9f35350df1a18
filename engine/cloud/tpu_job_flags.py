"""The flags of engine.tpu_job, and their checks before anything costs money."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from engine.cloud.gcloud import TpuVm
from engine.errors import ConfigurationError

CHECKOUT = Path(__file__).resolve().parents[2]

# https://cloud.google.com/tpu/docs/runtimes. The pinned TensorFlow is installed on top of these.
_RUNTIMES = {
    **dict.fromkeys(("v2", "v3", "v4"), "tpu-ubuntu2204-base"),
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
# The number in a type counts cores for v2 to v4 and v5p, and chips for v5litepod and v6e.
_MOST_ON_ONE_HOST = 8


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    for name, default, text in (
        ("name", None, "Name of the TPU VM. Use it for this job only: the VM is deleted at the end."),
        ("zone", None, "Zone, such as us-west4-a."),
        ("project", None, "Google Cloud project; gcloud's default if not given."),
        ("accelerator_type", None, "TPU of a single host, such as v2-8, v5litepod-8 or v6e-8."),
        ("runtime_version", None, "Image of the VM; the usual one for its TPU if not given."),
        ("valid_until_duration", None, "With --queued: how long to wait, such as 6h."),
        ("workdir", None, "Run directory, gs://BUCKET/...; a run in it is continued."),
        ("output", None, "Local folder to copy the run to; runs/NAME if not given."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    for name, text in (
        ("spot", "Use a cheaper VM, which may be preempted."),
        ("queued", "Wait in the queue until a TPU is free."),
        ("keep_vm", "Do not delete the VM at the end."),
        ("dry_run", "Print the commands without running them."),
        ("allow_config_change", "As in engine.train."),
    ):
        flags.DEFINE_bool(name, False, text, flag_values=values)
    for name, text in (
        ("gin_file", "Configuration file of the checkout, as in engine.train"),
        ("gin_param", "Override, as in engine.train; paths in it are those of the VM, or gs://"),
        ("create_flag", "Further flag for gcloud's create, such as --create_flag=--network=mine"),
    ):
        flags.DEFINE_multi_string(name, [], text, flag_values=values)
    flags.DEFINE_integer("max_restarts", 20, "Give up after this many preemptions.", 0, flag_values=values)
    flags.DEFINE_float(
        "poll_sec", 15.0, "Seconds between two requests for the VM's state.", 0.0, flag_values=values
    )


def check(values: flags.FlagValues, *, checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Checks the flags.

    Args:
      values: the parsed flags.
      checkout: the git repository of this program.

    Returns:
      The arguments of `engine.cloud.tpu_job.TpuJob`.

    Raises:
      ConfigurationError: a flag is missing or cannot work.
    """
    for name in ("name", "zone", "accelerator_type", "workdir", "gin_file"):
        if not values[name].value:
            _refuse(f"no --{name} given; --help explains it")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", values.name):
        _refuse(f"--name={values.name}: not a name for a TPU VM; use small letters, digits and dashes")
    if not re.fullmatch(r"gs://[^/]+/.*[^/]/*", values.workdir):
        _refuse(
            f"--workdir={values.workdir}: must be in a bucket, because a VM's disk is deleted with it; write "
            "gs://BUCKET/runs/NAME"
        )
    if wrong := re.search(r"[*?\[\]{}#\x00-\x1f]", values.workdir):
        _refuse(
            f"--workdir={values.workdir}: gcloud takes {wrong[0]!r} as a pattern or refuses it; choose a "
            "path without it"
        )
    if values.valid_until_duration and not values.queued:
        _refuse("--valid_until_duration: applies to queued requests only; add --queued")
    if not (checkout / ".git").exists():
        _refuse(f"{checkout}: not a git repository, so its files cannot be listed; use a clone")
    output = _output(values.output or f"runs/{values.name}")
    return {
        "vm": TpuVm(
            name=values.name,
            zone=values.zone,
            project=values.project,
            accelerator_type=values.accelerator_type,
            runtime_version=_runtime(values),
            spot=values.spot,
            queued=values.queued,
            valid_until_duration=values.valid_until_duration,
            create_flags=tuple(values.create_flag),
        ),
        "training_flags": [
            *(f"--gin_file={_in_checkout(path, checkout)}" for path in values.gin_file),
            *(f"--gin_param={param}" for param in values.gin_param),
            f"--workdir={values.workdir}",
            *(["--allow_config_change"] if values.allow_config_change else []),
        ],
        "workdir": values.workdir,
        "output": output,
        "checkout": checkout,
        "keep_vm": values.keep_vm,
        "max_restarts": values.max_restarts,
        "poll_sec": values.poll_sec,
    }


def _runtime(values: flags.FlagValues) -> str:
    kind, _, size = values.accelerator_type.partition("-")
    if kind not in _RUNTIMES or not re.fullmatch(r"[1-9]\d*", size):
        _refuse(
            f"--accelerator_type={values.accelerator_type}: unknown; use one of "
            f"{', '.join(_RUNTIMES)}, with a size: v5litepod-8"
        )
    if int(size) > _MOST_ON_ONE_HOST:
        # TPUStrategy runs in one process and needs a TensorFlow server of the same version on every other
        # host. Only Google's tpu-vm-tf-*-pod images have one, and there are none for our TensorFlow.
        _refuse(
            f"--accelerator_type={values.accelerator_type}: has several hosts, and TensorFlow's TPUStrategy "
            f"works with one only; use {kind}-{_MOST_ON_ONE_HOST} or smaller"
        )
    return values.runtime_version or _RUNTIMES[kind]


def _in_checkout(path: str, checkout: Path) -> str:
    """The path of a gin file, relative to the checkout. The file must be one that is copied to the VM."""
    path.encode()  # a path that is not UTF-8 is refused here, not after a VM was created
    found = next((p.resolve() for p in (Path(path), checkout / path) if os.path.isfile(p)), None)
    if found is None:
        _refuse(f"--gin_file={path}: no such file here or in {checkout}; check the path")
    if not found.is_relative_to(checkout):
        _refuse(f"--gin_file={path}: lies outside {checkout}, so it is not copied to the VM; move it there")
    relative = found.relative_to(checkout).as_posix()
    known = subprocess.run(
        ["git", "--literal-pathspecs", "-C", str(checkout), "ls-files", "--error-unmatch", "--", relative],
        capture_output=True,
        check=False,
    )
    if known.returncode:
        _refuse(
            f"--gin_file={path}: git does not track it, so it is not copied; run git add "
            f"{shlex.quote(relative)}"
        )
    return relative


def _output(path: str) -> str:
    """The local folder, as a path that no command takes for a flag."""
    path.encode()
    existing = Path(path)
    missing = []  # names of folders that are made at the end
    while not os.path.lexists(existing):
        missing.append(existing.name)
        existing = existing.parent
    try:
        if not stat.S_ISDIR(os.stat(existing).st_mode):
            _refuse(f"--output={path}: {existing} is not a folder; choose another")
        for name in [*missing, path]:
            with contextlib.suppress(FileNotFoundError):  # so the system accepts its length
                os.stat(existing / name)
    except OSError as error:
        _refuse(f"--output={path}: cannot be used ({error.strerror}); choose another folder")
    return os.path.join(os.curdir, path) if path.startswith("-") else path


def _refuse(message: str) -> NoReturn:
    raise ConfigurationError(message)
