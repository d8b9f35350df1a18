"""Every program with paths of every kind: it works, or ends with one line and exit code 2."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from absl.flags import FlagValues
from PIL import Image

import data.prepare
import engine.evaluate
import engine.preview
import engine.train
import engine.translate
from data.preparation import prepare_flags
from engine.cli import program
from tests.helpers.runs import WGAN_GP

DEFINE_FLAGS = {
    data.prepare: prepare_flags.define,
    **{
        module: module.define_flags
        for module in (engine.train, engine.evaluate, engine.translate, engine.preview)
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


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_run_under_another_name(run, trained, tmp_path, name):
    """It is continued, evaluated and translates, its data set, gin file and outputs renamed too."""
    data_dir, workdir, gin_file = (tmp_path / what / name for what in ("data", "run", "gin"))
    shutil.copytree(trained[0], data_dir)
    shutil.copytree(trained[1], workdir)
    gin_file = tmp_path / "gin" / file_name(name, ".gin")
    gin_file.parent.mkdir()
    shutil.copy(trained[2], gin_file)
    params = gin_params(data_dir, "supply.Supply.cache = 'disk'", "EVALUATE_EVERY = 1")
    code, out, err = run(engine.train, gin_file=[WGAN_GP, gin_file], gin_param=params, workdir=workdir)
    assert (code, err) == (0, "") and "done: 2 examples" in out
    code, out, err = run(engine.evaluate, workdir=workdir, split="train")
    assert (code, err) == (0, "") and "psnr" in out.lower()
    pictures, output = tmp_path / "pictures" / name, tmp_path / "translated" / name
    pictures.mkdir(parents=True)
    picture(width=32).save(pictures / file_name(name, ".png"))
    given = pictures / file_name(name, ".png") if len(name) % 2 else pictures
    code, out, err = run(engine.translate, workdir=workdir, input=given, output=output)
    assert (code, err) == (0, "")
    assert os.listdir(output) == [file_name(name, ".png")]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_preview(run, trained, tmp_path, name):
    output = tmp_path / name / file_name(name, ".png")
    files, params = [WGAN_GP, trained[2]], gin_params(trained[0])
    code, _, err = run(engine.preview, gin_file=files, gin_param=params, output=output, examples=1)
    assert (code, err) == (0, "")
    with Image.open(output) as sheet:
        assert sheet.size == (64, 32)


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
        "too long": folder / ("x" * 256),
        "far too long": folder / "/".join(["x" * 200] * 30),
        "not UTF-8": folder / os.fsdecode(b"caf\xe9" * 2),
    }


KINDS = ["loop", "inside a loop", "too long", "far too long", "not UTF-8"]


@pytest.mark.parametrize("kind", KINDS)
def test_paths_that_cannot_be_are_refused_in_one_line(run, trained, tmp_path, kind):
    wrong = wrong_paths(tmp_path)[kind]
    data_dir, workdir, gin_file = trained
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture(width=32).save(pictures / "a.png")
    prepare = {"layout": "single", "name": "made", "source": pictures, "data_dir": tmp_path / "sets"}
    config = {"gin_file": [WGAN_GP, gin_file], "gin_param": gin_params(data_dir)}
    train = config | {"workdir": tmp_path / "run"}
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
    ):
        code, out, err = run(module, **flags)
        given = next(name for name, value in flags.items() if value == wrong)
        assert (code, out) == (2, ""), (module, given, err)
        assert err.count("\n") == 1 and ";" in err, (module, given, err)
    assert not [path for path in set(tmp_path.rglob("*")) - before if not path.is_dir()]


def test_pictures_that_cannot_be_read_are_named(run, trained, tmp_path):
    wrong_paths(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "b.png").symlink_to("b.png")
    code, _, err = run(engine.translate, workdir=trained[1], input=pictures, output=tmp_path / "out")
    assert code == 2 and err.count("\n") == 1
