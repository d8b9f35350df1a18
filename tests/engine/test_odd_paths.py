"""Every program with paths of every kind: it works, or ends with one line and exit code 2."""

import os
import shlex
import shutil
import subprocess
import unicodedata

import numpy as np
import pytest
from absl.flags import FlagValues
from PIL import Image

import data.prepare
import engine.doctor
import engine.evaluate
import engine.launch
import engine.preview
import engine.tpu_job
import engine.train
import engine.translate
from data.errors import DataError
from data.pairs import PairedImages
from data.preparation import prepare_flags
from data.supply import Supply
from engine.cli import program
from engine.cloud import tpu_job_flags
from engine.data_service import start
from engine.errors import ConfigurationError
from engine.pictures.picture_paths import find_pictures
from models.networks.patchgan import patchgan
from models.torch_weights import TorchWeights, save_reference
from tests.helpers.runs import WGAN_GP

DEFINE_FLAGS = {
    data.prepare: prepare_flags.define,
    engine.tpu_job: tpu_job_flags.define_flags,
    **{
        module: module.define_flags
        for module in (engine.train, engine.evaluate, engine.translate, engine.preview, engine.doctor)
    },
}
NAMES = {
    "brackets": "run [copy]",
    "pattern": "*?[!a]{b,c}",
    "backslash": "a\\b\\n\\[",
    "quotes": "'q' \"d\" `t`",
    "percent": "100% %s %2F {0} $HOME",
    "newline": "a\nb\tc",
    "composed": unicodedata.normalize("NFC", "Übung é 画"),
    "decomposed": unicodedata.normalize("NFD", "Übung é 画"),
    "dash": "-rf --help",
    "longest": "x" * 255,
    "trailing dot": "x.",
    "trailing space": " x ",
    "signs": "#a;b,c:d=e@f&g|h<i>!~",
}
FIRST = {"position_examples": 0, "global_batch": 1}
LAST = ("dash", "longest", "trailing dot", "trailing space")
"""Names that are odd as the last part of a path; the others are so anywhere in it."""
ALL_AT_ONCE = "-".join(name for kind, name in NAMES.items() if kind != "longest")[:200] + "e\u0301 ."


@pytest.fixture
def run(capfd):
    """Runs a program in this process: run(module, flag=value or values) -> exit code, stdout, stderr."""

    def start(module, **flags):
        argv = ["program"]
        for name, values in flags.items():
            argv += [f"--{name}={value}" for value in (values if isinstance(values, list) else [values])]
        values = FlagValues()
        DEFINE_FLAGS[module](values)
        capfd.readouterr()
        try:
            code = program.exit_code(module.main, program.parse_flags(argv, values), values)
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return start


def picture(seed=0, width=64):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, width, 3), np.uint8))


def file_name(name, extension):
    """A file of this name: of at most 255 bytes, as file systems have it."""
    return name.encode()[: 255 - len(extension)].decode(errors="ignore") + extension


def gin_params(data_dir, *more):
    return ["DATASET = 'made'", f"DATA_DIR = {str(data_dir)!r}", "LOAD_SIZE = 0", "SAVE_EVERY = 1", *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(data directory, run directory, gin file), all of odd names, of a run on one pair."""
    root = tmp_path_factory.mktemp("trained") / ALL_AT_ONCE
    source, data_dir, workdir = (root / f"{ALL_AT_ONCE} {what}" for what in ("source", "data", "run"))
    source.mkdir(parents=True)
    picture().save(source / file_name(ALL_AT_ONCE, ".png"))
    data.prepare.prepare(
        layout="side_by_side", source=source, name="made", data_dir=data_dir, val_fraction=0, test_fraction=0
    )
    gin_file = root / file_name(ALL_AT_ONCE, ".gin")
    gin_file.write_text("CPU_REPLICAS = 1\nBATCH_SCHEDULE = 1\nTOTAL_EXAMPLES = 2\n")
    params = gin_params(data_dir, "supply.Supply.cache = 'disk'", "EVALUATE_EVERY = 1")
    engine.train.train(gin_files=[WGAN_GP, str(gin_file)], gin_params=params, workdir=str(workdir))
    return data_dir, workdir, gin_file


def test_a_run_of_odd_names_is_complete(trained):
    _, workdir, _ = trained
    assert {"checkpoints", "best", "samples", "tensorboard", "DONE"} <= set(os.listdir(workdir))
    assert sorted(os.listdir(workdir / "checkpoints")) == ["00000001", "00000002"]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_prepare(run, tmp_path, name):
    source, data_dir = tmp_path / "in" / name, tmp_path / "out" / name
    source.mkdir(parents=True)
    picture().save(source / file_name(name, ".png"))
    code, out, err = run(
        data.prepare, layout="side_by_side", source=source, name="made", data_dir=data_dir,
        val_fraction=0, test_fraction=0, strict=True,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert os.listdir(data_dir) == ["made"]
    assert run(data.prepare, layout="tfds", name="made", data_dir=data_dir)[0] == 0


@pytest.mark.parametrize("last", LAST)
def test_a_run_under_other_names(run, trained, tmp_path, last):
    """It is continued, evaluated and translates, its data set, gin file and outputs renamed too."""
    folder = tmp_path.joinpath(*(name for kind, name in NAMES.items() if kind not in LAST))
    name = NAMES[last]
    data_dir, workdir, gin_file = (folder / what / name for what in ("data", "run", "gin"))
    shutil.copytree(trained[0], data_dir)
    shutil.copytree(trained[1], workdir)
    gin_file = folder / "gin" / file_name(name, ".gin")
    gin_file.parent.mkdir()
    shutil.copy(trained[2], gin_file)
    params = gin_params(data_dir, "supply.Supply.cache = 'disk'", "EVALUATE_EVERY = 1")
    config = {"gin_file": [WGAN_GP, gin_file], "gin_param": params}
    code, out, err = run(engine.train, **config, workdir=workdir)
    assert (code, err) == (0, "") and "done: 2 examples" in out
    code, out, err = run(engine.evaluate, workdir=workdir, split="train")
    assert (code, err) == (0, "") and "psnr" in out.lower()
    pictures, output = folder / "pictures" / name, folder / "translated" / name
    pictures.mkdir(parents=True)
    files = sorted(file_name(each, ".png") for each in NAMES.values())
    for file in files:
        picture(width=32).save(pictures / file)
    assert run(engine.translate, workdir=workdir, input=pictures, output=output)[::2] == (0, "")
    assert sorted(os.listdir(output)) == files
    for file in files:  # a name with the characters of a pattern is no pattern
        assert [found.path for found in find_pictures(str(pictures / file))] == [str(pictures / file)]
    sheet = folder / "sheet" / file_name(name, ".png")
    assert run(engine.preview, **config, output=sheet, examples=1)[::2] == (0, "")
    with Image.open(sheet) as image:
        assert image.size == (64, 32)
    code, out, err = run(engine.doctor, **config, measure_memory="false")
    assert (code, err) == (0, "") and "Data: 1 training examples" in out


def test_data_of_odd_names_from_the_data_service(trained):
    service, servers = start(port=0)
    assert servers
    settings = {"dataset": "made", "data_dir": str(trained[0]), "load_size": 0, "crop_size": 32}
    served, plain = (
        next(iter(PairedImages(**settings, flip=False, supply=supply).batches(**FIRST)))["input"]
        for supply in (Supply(service=service), Supply())
    )
    np.testing.assert_array_equal(served, plain)


@pytest.mark.parametrize("dispatcher", [*NAMES.values(), "localhost", "localhost:1", ":0", "[::1]:70000"])
def test_a_data_service_that_does_not_answer_is_refused(dispatcher):
    """TensorFlow's worker would wait for it forever, and Ctrl-C would not end it."""
    with pytest.raises(DataError, match="(?s)dispatcher .* does not answer .*; give HOST:PORT"):
        start(dispatcher=dispatcher)


@pytest.fixture(scope="module")
def discriminator():
    return patchgan(name="d", input_channels=1, filters=1, norm="batch", spectral_norm=False)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_weights_of_the_reference(monkeypatch, tmp_path, discriminator, name):
    """Written and read under a relative path, which begins with the odd name."""
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)
    path = os.path.join(name, file_name(name, ".pth"))
    save_reference(discriminator, path)
    assert os.listdir(name) == [os.path.basename(path)]
    before = discriminator.get_weights()
    discriminator.set_weights([np.full_like(value, 7) for value in before])
    TorchWeights(files={"d": path})({"d": discriminator})
    for value, expected in zip(discriminator.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_the_launcher_starts_commands_of_odd_names(capfd, tmp_path):
    for name in NAMES.values():
        command = tmp_path / name
        command.write_text("#!/bin/sh\nprintf '%s,' \"$@\"\n")
        command.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("signal.signal", lambda *_: None)  # those of this process stay
            assert engine.launch.main(["--workers=1", "--", str(command), name, "x"]) == 0
        out, err = capfd.readouterr()
        lines = [line.removeprefix("[worker 0] ") for line in out.splitlines()]
        assert ("\n".join(lines), err) == (f"{name},x,", "")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A git repository with a gin file of each name."""
    folder = tmp_path_factory.mktemp("git") / ALL_AT_ONCE
    (folder / "gin").mkdir(parents=True)
    for name in NAMES.values():
        (folder / "gin" / file_name(name, ".gin")).write_text("")
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


TPU_JOB = {"name": "mine", "zone": "us-west4-a", "accelerator_type": "v5litepod-8", "dry_run": "true"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_tpu_job(run, checkout, monkeypatch, tmp_path, name):
    """The commands that it prints hold the paths, and no path is taken for a flag or a pattern."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of this process stay
    monkeypatch.setattr(tpu_job_flags.check, "__kwdefaults__", {"checkout": checkout})
    gin_file = f"gin/{file_name(name, '.gin')}"
    given = TPU_JOB | {"gin_file": gin_file, "output": name, "workdir": "gs://bucket/mine"}
    code, out, err = run(engine.tpu_job, **given)
    assert (code, err) == (0, "")
    commands = shlex.split(out)
    [started] = [word for word in commands if "tpu_vm.sh start" in word]
    assert shlex.split(started.removeprefix("--command="))[3:] == [
        f"--gin_file={gin_file}", "--workdir=gs://bucket/mine"
    ]  # fmt: skip
    after_mkdir = commands[commands.index("rsync") - 3]
    assert after_mkdir == (f"./{name}" if name.startswith("-") else name)


def test_a_pattern_in_a_folder_with_brackets(run, trained, tmp_path):
    folder = tmp_path / "photos [2024]"
    folder.mkdir()
    picture(width=32).save(folder / "a.png")
    (folder / "loop").symlink_to(".")
    for number, pattern in enumerate(("*.png", "**/*.png")):
        output = tmp_path / str(number)
        assert run(engine.translate, workdir=trained[1], input=folder / pattern, output=output)[0] == 0
        assert os.listdir(output) == ["a.png"]


def wrong_paths(folder):
    """Paths that no file can have, or that cannot be printed, by kind."""
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "first").symlink_to(folder / "second")
    (folder / "second").symlink_to(folder / "first")
    return {
        "loop": folder / "loop",
        "inside a loop": folder / "first" / "x.png",
        "too long": folder / "new" / ("x" * 256),
        "far too long": folder / "/".join(["x" * 200] * 30),
        "not UTF-8": folder / os.fsdecode(b"caf\xe9" * 2),
    }


KINDS = ["loop", "inside a loop", "too long", "far too long", "not UTF-8"]


@pytest.mark.parametrize("kind", KINDS)
def test_paths_that_cannot_be_are_refused_in_one_line(run, capfd, trained, discriminator, tmp_path, kind):
    wrong = wrong_paths(tmp_path)[kind]
    data_dir, workdir, gin_file = trained
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture(width=32).save(pictures / "a.png")
    prepare = {"layout": "single", "name": "made", "source": pictures, "data_dir": tmp_path / "sets"}
    config = {"gin_file": [WGAN_GP, gin_file], "gin_param": gin_params(data_dir)}
    train = config | {"workdir": tmp_path / "run"}
    tpu_job = TPU_JOB | {"gin_file": "gin/pix2pix.gin", "workdir": "gs://bucket/mine"}
    preview = config | {"output": tmp_path / "sheet.png"}
    translate = {"workdir": workdir, "input": pictures, "output": tmp_path / "translated"}
    before = set(tmp_path.rglob("*"))
    for module, flags in (
        (data.prepare, prepare | {"source": wrong}),
        (data.prepare, prepare | {"data_dir": wrong}),
        (data.prepare, prepare | {"side_map": wrong}),
        (data.prepare, prepare | {"side_vector": wrong}),
        (data.prepare, prepare | {"split_lists": wrong}),
        (engine.train, train | {"workdir": wrong}),
        (engine.train, train | {"gin_file": wrong}),
        (engine.evaluate, {"workdir": wrong}),
        (engine.translate, translate | {"workdir": wrong}),
        (engine.translate, translate | {"input": wrong}),
        (engine.translate, translate | {"output": wrong}),
        (engine.translate, translate | {"workdir": workdir, "input": pictures / "a.png", "output": wrong}),
        (engine.preview, preview | {"gin_file": wrong}),
        (engine.preview, preview | {"output": wrong}),
        (engine.doctor, config | {"gin_file": wrong}),
        (engine.tpu_job, tpu_job | {"gin_file": wrong}),
        (engine.tpu_job, tpu_job | {"output": wrong}),
    ):
        code, out, err = run(module, **flags)
        given = next(name for name, value in flags.items() if value == wrong)
        assert (code, out) == (2, ""), (module, given, err)
        assert err.count("\n") == 1 and ";" in err, (module, given, err)
    with pytest.raises(SystemExit, match="2"):
        engine.launch.main(["--", str(wrong)])
    assert capfd.readouterr().err.count("\n") == 1
    with pytest.raises((ConfigurationError, UnicodeEncodeError)):  # the programs print both as one line
        TorchWeights(files={"d": str(wrong)})({"d": discriminator})
    if kind != "loop":  # the file takes the place of such a link, as of any other file
        with pytest.raises((ConfigurationError, UnicodeEncodeError)):
            save_reference(discriminator, str(wrong))
    assert set(tmp_path.rglob("*")) == before  # no empty folders either


def test_pictures_that_cannot_be_read_are_named(run, trained, tmp_path):
    wrong_paths(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "b.png").symlink_to("b.png")
    code, _, err = run(engine.translate, workdir=trained[1], input=pictures, output=tmp_path / "out")
    assert code == 2 and err.count("\n") == 1
