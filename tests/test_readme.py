"""README.md does what it says: its commands, its Python and its GAN, on small pictures and networks."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from absl.flags import FlagValues
from PIL import Image

import engine.doctor
import engine.evaluate
import engine.export
import engine.pack
import engine.train
import engine.translate
from data.preparation import prepare_flags
from data.prepare import prepare
from engine.cli import program

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = {  # how each defines its flags, and what it does with them
    "data.prepare": (prepare_flags.define, lambda values: prepare(**prepare_flags.arguments(values))),
    "engine.doctor": (engine.doctor.define_flags, engine.doctor.main),
    "engine.evaluate": (engine.evaluate.define_flags, engine.evaluate.main),
    "engine.export": (engine.export.define_flags, engine.export.main),
    "engine.pack": (engine.pack.define_flags, engine.pack.main),
    "engine.train": (engine.train.define_flags, engine.train.main),
    "engine.translate": (engine.translate.define_flags, engine.translate.main),
}
SMALL = (
    "TOTAL_EXAMPLES = 2",
    "LOAD_SIZE = 36",
    "CROP_SIZE = 32",
    "STRATEGY = 'one_device'",
    "pix2pix.Pix2Pix.generator = 'unet_32'",  # the pictures are as large as it takes
)
"""What makes a published configuration train in seconds."""


def blocks(language=""):
    """The code blocks of README.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """The commands of README.md in the order in which they stand there, those inside a line included."""
    written = re.findall(r"^python -m .*|`(?:python -m|make)[^`]*`|^make \w+", README, re.MULTILINE)
    return [command.strip("`") for command in written]


@pytest.fixture
def folder(tmp_path, monkeypatch, synthetic_datasets, small_networks):
    """A working directory that is like the checkout, with the folders of pictures that README.md names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "gin").symlink_to(ROOT / "gin")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "synthetic_facades").symlink_to(Path(synthetic_datasets) / "synthetic_facades")
    rng = np.random.default_rng(5)
    for name, count, width in (("MY_IMAGES", 12, 80), ("PICTURES", 2, 64)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (32 if name == "PICTURES" else 40, width, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def run(command):
    """Runs `python -m PROGRAM FLAGS` in this process, on small networks; returns its exit code."""
    _, _, name, *flags = shlex.split(command)
    (define_flags, main), values = PROGRAMS[name], FlagValues()
    define_flags(values)
    if name in ("engine.train", "engine.doctor"):
        small = SMALL if "pix2pix" in command else SMALL[:4]
        flags += [f"--gin_param={param}" for param in small]
    if name == "engine.doctor":
        flags.append("--nomeasure_memory")  # measuring takes a process of its own; tests of the doctor do it
    return program.exit_code(main, values([name, *flags]), values)


def test_its_commands_run_in_their_order(folder):
    ran = []
    for command in commands():
        name = command.split()[2] if command.startswith("python") else ""
        if name and "my_gan" not in command:
            assert run(command) == 0, command
            ran.append(name)
    used = ["engine.evaluate", "engine.translate", "engine.export", "engine.pack"]
    assert ran == ["data.prepare", "engine.train", *used, "engine.doctor"]
    assert (folder / "exports" / "mine" / "generator.keras").exists() and (folder / "mine.tar").exists()
    assert sorted(path.name for path in (folder / "translated").iterdir()) == ["0.png", "1.png"]
    assert (folder / "runs" / "mine" / "DONE").exists()


def test_its_gan_trains(folder):
    source = next(block for block in blocks("python") if "class MyGan" in block)
    settings = next(block for block in blocks() if "my_gan.MyGan()" in block)
    (folder / "my_gan.py").write_text(source, encoding="utf-8")
    (folder / "my_gan.gin").write_text(settings, encoding="utf-8")
    command = next(command for command in commands() if "my_gan.gin" in command)
    assert run(command) == 0
    assert (folder / "runs" / "my_gan" / "DONE").exists()


def test_its_python_is_that_of_the_commands(folder, monkeypatch):
    """The calls of README.md, with small networks; what they do is what the commands do."""
    source = next(block for block in blocks("python") if "prepare(" in block)
    train = engine.train.train
    monkeypatch.setattr(
        engine.train,
        "train",
        lambda *, gin_params, **rest: train(gin_params=[*gin_params, *SMALL], **rest),
    )
    Image.new("RGB", (50, 40), "red").save(folder / "photo.jpg")
    names: dict = {}
    exec(compile(source, "README.md", "exec"), names)
    assert names["picture"].shape == (40, 50, 3) and names["picture"].dtype == np.uint8


def test_its_targets_and_settings_exist():
    targets = {command.split()[1] for command in commands() if command.startswith("make ")}
    assert targets >= {"train", "test"}
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    base = (ROOT / "gin" / "base.gin").read_text(encoding="utf-8")
    for macro in set(re.findall(r"gin_param='([A-Z_]+) = ", README)):
        assert re.search(rf"^{macro} = ", base, re.MULTILINE), macro
    for path in set(re.findall(r"`(\w+\.gin)`", README)) - {"my_gan.gin", "config.gin"}:
        assert (ROOT / "gin" / path).exists(), path
