"""A run that older code has trained is evaluated, translated from and continued, bit for bit.

tests/goldens/old_run holds such a run, trained to half of its total, and what that code made of it.
tests/helpers/old_run.py wrote it, at commit 0e02cca.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.evaluate import evaluate
from engine.storage.run_directory import read_rows
from engine.train import train
from engine.translate import translate
from tests.helpers import old_run

FOLDER = Path(__file__).parents[1] / "goldens" / "old_run"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
SAME_BITS = EXPECTED["machine"] == old_run.machine()
"""Elsewhere the CPU may sum products in another order, so numbers agree only to rounding."""


@pytest.fixture
def workdir(tmp_path, synthetic_datasets):
    """A copy of the run, with the data set where it is on this machine."""
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.gin"
    setting = f"DATA_DIR = {old_run.DATA_DIR!r}"
    text = config.read_text()
    assert text.count(setting) == 1
    config.write_text(text.replace(setting, f"DATA_DIR = {synthetic_datasets!r}"))
    return str(tmp_path / "run")


@pytest.fixture(scope="module")
def expected_arrays():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def test_evaluates_to_the_same_metrics(workdir):
    evaluate(workdir=workdir)
    (row,) = read_rows(f"{workdir}/eval.jsonl")
    expected = EXPECTED["evaluation"]
    assert row.keys() == expected.keys()
    for name in row.keys() - {"time_unix"}:
        assert row[name] == (expected[name] if SAME_BITS else pytest.approx(expected[name], rel=1e-4)), name


def test_translates_to_the_same_picture(workdir, tmp_path, expected_arrays):
    translate(workdir=workdir, input=str(FOLDER / "input.png"), output=str(tmp_path / "out"), raw=True)
    translated = np.load(tmp_path / "out" / "input.npy")
    np.testing.assert_allclose(translated, expected_arrays["translated"], rtol=1e-4, atol=1e-5)
    if SAME_BITS:
        assert translated.tobytes() == expected_arrays["translated"].tobytes()


def test_continues_to_the_same_weights(workdir, synthetic_datasets, expected_arrays):
    params = [*old_run.PARAMS, f"DATA_DIR = {synthetic_datasets!r}"]
    train(gin_files=[old_run.GIN_FILE], gin_params=params, workdir=workdir)
    final = old_run.checkpoint_values(Path(workdir) / "checkpoints" / f"{old_run.TOTAL:08d}")
    digests = old_run.digests(final)
    described = {name: text.rpartition(" ")[0] for name, text in digests.items()}  # dtype and shape
    assert described == {name: text.rpartition(" ")[0] for name, text in EXPECTED["digests"].items()}
    for name, value in old_run.networks_only(final).items():
        np.testing.assert_allclose(value, expected_arrays[name], rtol=1e-4, atol=1e-4, err_msg=name)
    if SAME_BITS:
        assert digests == EXPECTED["digests"]
