"""The flags of engine.tpu_job, and what can be said of them before anything is paid for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from absl import flags

from engine.cloud.gcloud import TpuVm
from engine.errors import ConfigurationError

CHECKOUT = Path(__file__).resolve().parents[2]

# https://cloud.google.com/tpu/docs/runtimes; the pinned TensorFlow is installed on top.
_RUNTIMES = {
    **dict.fromkeys(("v2", "v3", "v4"), "tpu-ubuntu2204-base"),
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
# The number in a type counts cores for v2 to v4 and v5p, of which a host has 8, and chips for v5litepod and
# v6e, of which one host has up to 8.
_ONE_HOST = 8


def define_flags(values: flags.FlagValues) -> None:
    for name, default, text in (
        ("name", None, "TPU VM of this job, and of no other: it is deleted in the end."),
        ("zone", None, "Where, such as us-west4-a."),
        ("project", None, "Google Cloud project; gcloud's own default if not given."),
        ("accelerator_type", None, "TPU of one host, such as v2-8, v5litepod-8, v6e-8."),
        ("runtime_version", None, "Image of the VM; the one for its TPU if not given."),
        ("valid_until_duration", None, "With --queued: give up waiting after this, such as 6h."),
        ("workdir", None, "Run directory, gs://BUCKET/...; one that holds a run continues it."),
        ("output", None, "Local folder for the run; runs/NAME if not given."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    for name, text in (
        ("spot", "A cheaper VM, which may be preempted."),
        ("queued", "Wait in the queue until there is a TPU."),
        ("keep_vm", "Leave the VM there in the end, too."),
        ("dry_run", "Print the commands; run none."),
        ("allow_config_change", "As in engine.train."),
    ):
        flags.DEFINE_bool(name, False, text, flag_values=values)
    for name, text in (
        ("gin_file", "Configuration file of the checkout, as in engine.train"),
        ("gin_param", "Override, as in engine.train; paths in it are those of the VM, or gs://"),
        ("create_flag", "Further flag for gcloud's create, such as --create_flag=--network=mine"),
    ):
        flags.DEFINE_multi_string(name, [], text, flag_values=values)
    flags.DEFINE_integer("max_restarts", 20, "Preemptions after which to give up.", 0, flag_values=values)
    flags.DEFINE_float(
        "poll_sec", 15.0, "Seconds between two looks at a VM that is on its way.", 0.0, flag_values=values
    )


def check(values: flags.FlagValues, *, checkout: Path = CHECKOUT) -> dict[str, Any]:
    """What the flags say, as arguments of `engine.cloud.tpu_job.TpuJob`.

    Raises:
      ConfigurationError: one is missing or cannot work; one line.
    """
    for name in ("name", "zone", "accelerator_type", "workdir", "gin_file"):
        if not values[name].value:
            _refuse(f"no --{name} given; --help says what it is")
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", values.name):
        _refuse(f"--name={values.name}: a TPU VM has small letters, digits and dashes in its name")
    if not re.fullmatch(r"gs://[^/]+/.*[^/]/*", values.workdir):
        _refuse(
            f"--workdir={values.workdir}: a VM's own disk goes with it; keep the run in a bucket, "
            "gs://BUCKET/runs/NAME"
        )
    if values.valid_until_duration and not values.queued:
        _refuse("--valid_until_duration: only a request that waits can expire; add --queued")
    if not (checkout / ".git").exists():
        _refuse(f"{checkout} is no git repository; start from a clone of Gantry, whose files git can list")
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
        "output": values.output or f"runs/{values.name}",
        "checkout": checkout,
        "keep_vm": values.keep_vm,
        "max_restarts": values.max_restarts,
        "poll_sec": values.poll_sec,
    }


def _runtime(values: flags.FlagValues) -> str:
    kind, _, size = values.accelerator_type.partition("-")
    if kind not in _RUNTIMES or not re.fullmatch(r"[1-9]\d*", size):
        _refuse(
            f"--accelerator_type={values.accelerator_type}: unknown; TensorFlow runs on "
            f"{', '.join(_RUNTIMES)}, with a size: v5litepod-8"
        )
    if int(size) > _ONE_HOST:
        # TPUStrategy runs in one process and needs a TensorFlow server of the same version on every other
        # host, which only Google's tpu-vm-tf-*-pod images have, and those end before our TensorFlow.
        _refuse(
            f"--accelerator_type={values.accelerator_type}: a slice of several hosts, of which TensorFlow's "
            f"TPUStrategy can drive only one here; use {kind}-{_ONE_HOST} or smaller"
        )
    return values.runtime_version or _RUNTIMES[kind]


def _in_checkout(path: str, checkout: Path) -> str:
    """A gin file's path from the checkout; it must be among what is sent."""
    found = next((p for p in (Path(path), checkout / path) if p.is_file()), None)
    if found is None:
        _refuse(f"--gin_file={path}: no such file here or in {checkout}")
    if not found.resolve().is_relative_to(checkout):
        _refuse(f"--gin_file={path}: lies outside {checkout}, which is what is sent; copy it there")
    relative = found.resolve().relative_to(checkout).as_posix()
    known = subprocess.run(
        ["git", "-C", str(checkout), "ls-files", "--error-unmatch", relative],
        capture_output=True,
        check=False,
    )
    if known.returncode:
        _refuse(f"--gin_file={path}: git does not know it, so it would not be sent; git add {relative}")
    return relative


def _refuse(message: str) -> None:
    raise ConfigurationError(message)
