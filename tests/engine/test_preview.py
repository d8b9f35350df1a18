"""The contact sheet of what the network will see."""

import numpy as np
import pytest
from absl import flags
from PIL import Image

from data import imaging
from data.pairs import PairedImages
from engine import preview
from engine.cli.program import BAD_INPUT, DONE, exit_code


@pytest.fixture
def run(synthetic_datasets, tmp_path, capsys):
    """Runs the program: gives its exit code, its error text, and the picture."""

    def run_preview(*arguments):
        values = flags.FlagValues()
        preview.define_flags(values)
        output = tmp_path / "sheets" / "sheet.png"
        argv = ["preview", "--gin_file=gin/quickstart.gin", f"--output={output}"]
        argv.append(f"--gin_param=DATA_DIR = {synthetic_datasets!r}")
        code = exit_code(preview.main, values([*argv, *arguments]), values)
        return code, capsys.readouterr().err, output

    return run_preview


def test_cells_are_the_examples_that_training_draws(run, synthetic_datasets):
    code, _, output = run("--examples=5", "--position=7")
    assert code == DONE
    sheet = np.asarray(Image.open(output))
    data = PairedImages(dataset="synthetic_facades", data_dir=synthetic_datasets, load_size=72, crop_size=64)
    batch = next(iter(data.batches(position_examples=7, global_batch=5)))
    cells = np.concatenate([imaging.to_uint8(batch[role]) for role in ("input", "target")], axis=2)
    columns = (sheet.shape[1] + 8) // 136
    for number, cell in enumerate(cells):
        top, left = 72 * (number // columns), 136 * (number % columns)
        np.testing.assert_array_equal(sheet[top : top + 64, left : left + 128], cell)
    assert (sheet[:, 128:136] == 255).all()


def test_augmentations_and_rectangles_are_named_on_the_command_line(run):
    code, error, output = run(
        "--gin_file=gin/augmentations.gin",
        "--gin_param=AUGMENTATIONS = [@geometry.Rotation(), @colour.Invert()]",
        "--gin_param=colour.Invert.probability = 1.0",
        "--gin_param=CROP_SIZE = (32, 48)",
        "--examples=1",
    )
    assert (code, error) == (DONE, "")
    sheet = np.asarray(Image.open(output))
    assert sheet.shape == (32, 96, 3)
    _, _, plain = run("--gin_param=CROP_SIZE = (32, 48)", "--examples=1")
    assert np.abs(np.asarray(Image.open(plain)).astype(int) - sheet).mean() > 30


@pytest.mark.parametrize(
    "argument, match",
    [
        ("--examples=0", "at least 1 example"),
        ("--position=-1", "a position"),
        ("--output=/proc/no/x", "/proc/no/x"),
    ],
)
def test_bad_input_is_one_line(run, argument, match):
    code, error, _ = run(argument)
    assert code == BAD_INPUT
    assert match in error and error.count("\n") == 1
