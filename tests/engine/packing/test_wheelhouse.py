"""The packages and the project that a packed run takes along, with a package of this test's own."""

import base64
import hashlib
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from absl.flags import FlagValues
from packaging.markers import Marker
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

import engine.pack
import engine.train
from engine.errors import ConfigurationError
from engine.pack import Packages, pack, unpack
from engine.packing import wheelhouse
from engine.packing.wheelhouse import compatible_platforms, pins_for, target_environment

ROOT = Path(__file__).resolve().parents[3]
LOCK = (ROOT / "requirements-cpu.lock").read_text(encoding="utf-8")
NO_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def write_wheel(folder, name="tiny_package", version="1.0"):
    """A wheel with one module, as the specification of wheels asks for; returns its SHA-256."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": b"ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, data in files.items():
            wheel.writestr(inner, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A project that is locked to one package, which pip finds in a folder, and to one for Windows only."""
    (tmp_path / "index").mkdir()
    digest = write_wheel(tmp_path / "index")
    folder = tmp_path / "checkout"
    for name in ("engine/__pycache__", "data", "models/losses", "gin", "runs/mine", ".git_is_not_here"):
        (folder / name).mkdir(parents=True)
    for name in ("engine/train.py", "engine/__pycache__/train.pyc", "models/losses/l1.py", "gin/base.gin"):
        (folder / name).write_text(name)
    for name in ("runs/mine/config.gin", "pyproject.toml", "README.md", "notes.txt"):
        (folder / name).write_text(name)
    (folder / "requirements-cpu.lock").write_text(
        f"# made by hand\ntiny-package==1.0 \\\n    --hash=sha256:{digest}\n    # via nothing\n"
        f"absent==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{'0' * 64}\n"
    )
    monkeypatch.setattr(engine.pack, "ROOT", str(folder))
    for name, value in NO_INDEX.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


SOURCE = {
    "gantry/README.md",
    "gantry/engine/train.py",
    "gantry/gin/base.gin",
    "gantry/models/losses/l1.py",
    "gantry/pyproject.toml",
    "gantry/requirements-cpu.lock",
}
WHEELS = {"wheels/tiny_package-1.0-py3-none-any.whl", "wheels/requirements.lock"}


def test_packages_and_project_are_installed_without_an_index(checkout, small_run, packing, tmp_path):
    code, said, errors = packing(workdir=small_run, output=tmp_path / "run.tar", wheels="cpu")
    assert code == 0, errors
    code, said, errors = packing(unpack=tmp_path / "run.tar", output=tmp_path / "moved")
    assert code == 0, errors
    moved = tmp_path / "moved"
    found = {path.relative_to(moved).as_posix() for path in moved.rglob("*") if path.is_file()}
    assert {name for name in found if name.startswith(("gantry/", "wheels/"))} == SOURCE | WHEELS
    assert f"go to      cd {moved}/gantry\n" in said
    install = (
        f"python -m pip install --no-index --find-links={moved}/wheels -r {moved}/wheels/requirements.lock"
    )
    assert f"install    {install}\n" in said
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")} | NO_INDEX
    target = tmp_path / "site-packages"
    command = [sys.executable, *install.split()[1:], f"--target={target}"]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert (target / "tiny_package.py").read_text() == "ANSWER = 42\n"


def test_a_package_with_another_digest_is_refused(checkout, small_run, packing, tmp_path):
    (tmp_path / "index" / "tiny_package-1.0-py3-none-any.whl").write_bytes(b"other")
    code, _, errors = packing(workdir=small_run, output=tmp_path / "run.tar", wheels="cpu")
    assert (code, errors.count("\n")) == (2, 1) and "--wheels: pip cannot download the packages" in errors
    assert not (tmp_path / "run.tar").exists()


def test_a_package_that_is_nowhere_is_refused(checkout, small_run, packing, tmp_path):
    (tmp_path / "index" / "tiny_package-1.0-py3-none-any.whl").unlink()
    code, _, errors = packing(workdir=small_run, output=tmp_path / "run.tar", wheels="cpu")
    assert (code, errors.count("\n")) == (2, 1)
    assert "No matching distribution found for tiny-package==1.0" in errors
    assert "check the network and --python_version" in errors


def test_a_python_without_pip_is_told_so(checkout, small_run, packing, tmp_path, monkeypatch):
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    empty.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(empty))
    code, _, errors = packing(workdir=small_run, output=tmp_path / "run.tar", wheels="cpu")
    assert code == 2 and "has no pip; install it with" in errors and "ensurepip" in errors


def test_for_another_python_and_platform(checkout, small_run, tmp_path, monkeypatch):
    """The pins are those of the other machine, and pip is asked for its wheels."""
    seen = []

    def no_pip(command, **options):
        seen.append(command)
        folder = next(word for word in command if word.startswith("--dest=")).removeprefix("--dest=")
        (Path(folder) / "absent-2.0-py3-none-any.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(wheelhouse.subprocess, "run", no_pip)
    monkeypatch.setattr(wheelhouse, "git", lambda *words: "")
    packages = Packages(lock="cpu", python_version="3.12", platform="win_amd64")
    pack(workdir=str(small_run), output=str(tmp_path / "run.tar"), wheels=packages)
    unpack(archive=str(tmp_path / "run.tar"), output=str(tmp_path / "moved"))
    pins = (tmp_path / "moved" / "wheels" / "requirements.lock").read_text()
    assert pins.startswith("tiny-package==1.0 \\\n") and "absent==2.0 \\\n    --hash=sha256:000" in pins
    assert "sys_platform" not in pins
    assert {"--python-version=3.12", "--platform=win_amd64", "--no-deps", "--require-hashes"} <= set(seen[0])


def test_the_files_that_git_tracks_are_packed_as_they_are_now(tmp_path):
    (tmp_path / "gone.py").write_text("gone")
    (tmp_path / "a name.py").write_text("committed")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "a name.py").write_text("changed")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "new.py").write_text("new")
    sources = wheelhouse.checkout_sources(str(tmp_path))
    assert [(source.name, source.path) for source in sources] == [
        ("gantry/a name.py", str(tmp_path / "a name.py"))
    ]
    assert wheelhouse.untracked_files(str(tmp_path)) == ["new.py"]


def names(pins):
    return {line.split("==")[0] for line in pins.splitlines() if "==" in line}


def test_pins_of_the_lock_for_each_system():
    """As `packaging` says itself of every condition in the lock."""
    everywhere = names(pins_for(LOCK, target_environment(None, "manylinux_2_31_x86_64")))
    assert {"tensorflow-cpu", "numpy", "promise", "setuptools", "wheel", "array-record"} <= everywhere
    assert not {"tensorflow", "colorama"} & everywhere
    arm = names(pins_for(LOCK, target_environment("3.12", "macosx_12_0_arm64")))
    assert everywhere - arm == {"tensorflow-cpu", "array-record"} and arm - everywhere == {"tensorflow"}
    windows = names(pins_for(LOCK, target_environment("3.13", "win_amd64")))
    assert windows - everywhere == {"colorama"} and everywhere - windows == {"array-record"}
    whole = pins_for(LOCK, target_environment(None, None))
    count = sum(line[:1].isalnum() for line in LOCK.splitlines())
    assert whole.count("==") == len(names(whole)) == count - 2
    assert whole.count("--hash=sha256:") > 500 and " ; " not in whole


@pytest.mark.parametrize(
    "platform, marker",
    [
        ("manylinux_2_31_x86_64", "sys_platform == 'linux' and platform_machine == 'x86_64'"),
        ("manylinux2014_aarch64", "platform_system == 'Linux' and platform_machine == 'aarch64'"),
        ("macosx_12_0_arm64", "sys_platform == 'darwin' and platform_machine == 'arm64'"),
        ("win_amd64", "os_name == 'nt' and platform_machine == 'AMD64'"),
    ],
)
def test_the_markers_of_a_platform(platform, marker):
    environment = target_environment("3.13", platform)
    assert Marker(f"{marker} and python_version == '3.13' and python_full_version < '3.14'").evaluate(
        environment
    )


def test_wheels_for_an_older_glibc_are_taken():
    """pip asks for the very tag that it is given; a machine runs wheels for every older glibc, too."""
    tags = compatible_platforms("manylinux_2_28_x86_64")
    supported = {*cpython_tags((3, 11), platforms=tags), *compatible_tags((3, 11), platforms=tags)}
    for wheel, fits in (
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("libclang-18.1.1-py2.py3-none-manylinux2010_x86_64.whl", True),
        ("wrapt-2.5.2-cp311-cp311-manylinux1_x86_64.manylinux_2_5_x86_64.whl", True),
        ("h5py-3.14.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("tensorboard_data_server-0.7.2-py3-none-manylinux_2_31_x86_64.whl", False),
        ("h5py-3.14.0-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", False),
    ):
        assert bool(parse_wheel_filename(wheel)[3] & supported) == fits, wheel
    assert compatible_platforms("manylinux2010_x86_64")[0] == "manylinux_2_12_x86_64"
    assert compatible_platforms("win_amd64") == ["win_amd64"]


def test_an_unknown_platform_is_refused():
    for platform in ("amiga", "manylinux_2_31_riscv", "linux"):
        with pytest.raises(ConfigurationError, match="not known; use manylinux_2_31_x86_64"):
            target_environment(None, platform)


def test_the_cells_of_the_guide_have_flags_that_exist():
    guide = (ROOT / "engine" / "README.md").read_text(encoding="utf-8")
    section = guide.split("\n## Moving a run\n")[1].split("\n## ")[0].replace("\\\n", " ")
    commands = re.findall(r"python -m engine\.(pack|train) ([^\n#&]*)", section)
    assert len(commands) == 9
    for name, flags in commands:
        values = FlagValues()
        {"pack": engine.pack, "train": engine.train}[name].define_flags(values)
        assert values([name, *shlex.split(flags)]) == [name]
        if name == "pack":
            assert values.output and bool(values.workdir) != bool(values.unpack)
