"""What a fresh clone relies on: the locks, the extras, the entry points and the name `gin`."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
UNLOCKED = ("bench", "mlflow", "onnx", "video")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: e for name, e in PROJECT["optional-dependencies"].items() if name not in UNLOCKED}
LOCKS = {extra: (ROOT / f"requirements-{extra}.lock").read_text() for extra in EXTRAS}


def pins(extra):
    """Name -> version of a lock."""
    rows = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", LOCKS[extra], re.MULTILINE)
    return {canonicalize_name(name): version for name, version in rows}


def test_gin_folder_does_not_shadow_the_gin_package():
    assert {p.suffix for p in (ROOT / "gin").rglob("*") if not p.is_dir()} == {".gin"}
    import gin

    assert hasattr(gin, "configurable")


@pytest.mark.parametrize("extra", EXTRAS)
def test_lock_names_no_place(extra):
    lock = LOCKS[extra]
    assert "make lock" in "".join(lock.splitlines(keepends=True)[:2])
    assert not re.search(r"://|file:|--(extra-)?index-url|--find-links|--trusted-host|\.\./", lock)
    assert not re.search(r"(^|\s|=|@)/\w", lock, re.MULTILINE)  # an absolute path


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_pin_of_a_lock_has_hashes(extra):
    blocks = re.split(r"^(?=[\w.-]+(?:\[[^\]]*\])?==)", LOCKS[extra], flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(extra))
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("extra", EXTRAS)
def test_lock_satisfies_pyproject(extra):
    locked = pins(extra)
    for line in PROJECT["dependencies"] + EXTRAS[extra]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not in requirements-{extra}.lock: make lock"
        assert requirement.specifier.contains(locked[name]), f"{name}=={locked[name]}: make lock"


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"dev"}))
def test_dev_lock_goes_on_top_of_every_other(extra):
    base, dev = pins(extra), pins("dev")
    shared = base.keys() & dev.keys()
    assert {n: base[n] for n in shared} == {n: dev[n] for n in shared}


def test_console_scripts_point_at_the_binaries():
    assert PROJECT["scripts"] == {
        "gantry-prepare": "data.prepare:run",
        "gantry-train": "engine.train:run",
        "gantry-evaluate": "engine.evaluate:run",
        "gantry-doctor": "engine.doctor:run",
        "gantry-translate": "engine.translate:run",
        "gantry-preview": "engine.preview:run",
        "gantry-data-service": "engine.data_service:run",
        "gantry-launch": "engine.launch:run",
        "gantry-tpu-job": "engine.tpu_job:run",
        "gantry-report": "engine.report:run",
        "gantry-sweep": "engine.sweep:run",
        "gantry-events": "engine.events:run",
        "gantry-export": "engine.export:run",
        "gantry-pack": "engine.pack:run",
    }
    for target in PROJECT["scripts"].values():
        module, function = target.split(":")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        assert re.search(rf"^def {function}\(", source, re.MULTILINE), target
