"""A run that older code has trained is evaluated and translated from, bit for bit, and continued.

tests/goldens/old_run holds such a run, trained to half of its total, and what that code made of it.
tests/helpers/old_run.py wrote it, at commit 0e02cca.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.storage.run_directory import read_rows
from tests.helpers import old_run

FOLDER = Path(__file__).parents[1] / "goldens" / "old_run"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
SAME_BITS = EXPECTED["machine"] == old_run.machine()
"""Elsewhere the CPU may sum products in another order, so numbers agree only to rounding."""


OPEN_IT = """
import sys
from engine.evaluate import evaluate
from engine.train import train
from engine.translate import translate
from tests.helpers import old_run

workdir, picture, translations, data_dir = sys.argv[1:]
evaluate(workdir=workdir)
translate(workdir=workdir, input=picture, output=translations, raw=True)
params = [*old_run.PARAMS, f"DATA_DIR = {data_dir!r}"]
train(gin_files=[old_run.GIN_FILE], gin_params=params, workdir=workdir)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory, synthetic_datasets) -> Path:
    """The run after it was evaluated, translated from and continued, beside the translations.

    This happens in a process of its own, as for a user: once a process has compiled anything with XLA, its
    later float64 sums differ in the last bit.
    """
    folder = tmp_path_factory.mktemp("old_run")
    shutil.copytree(FOLDER / "run", folder / "run")
    config = folder / "run" / "config.gin"
    setting = f"DATA_DIR = {old_run.DATA_DIR!r}"
    text = config.read_text()
    assert text.count(setting) == 1
    config.write_text(text.replace(setting, f"DATA_DIR = {synthetic_datasets!r}"))
    arguments = [folder / "run", FOLDER / "input.png", folder / "translations", synthetic_datasets]
    subprocess.run([sys.executable, "-c", OPEN_IT, *arguments], check=True)
    return folder


@pytest.fixture(scope="module")
def expected_arrays():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def test_evaluates_to_the_same_metrics(opened):
    row, _ = read_rows(str(opened / "run" / "eval.jsonl"))
    expected = EXPECTED["evaluation"]
    added = {name for name in row if name.startswith(("metric_low/", "metric_high/"))}
    assert row.keys() - added == expected.keys() | {"metric/kid", "metric/fid", "extractor"}
    assert row["split"] == expected["split"]  # pytest.approx takes numbers only
    for name in expected.keys() - {"time_unix", "split"}:
        assert row[name] == (expected[name] if SAME_BITS else pytest.approx(expected[name], rel=1e-4)), name


def test_translates_to_the_same_picture(opened, expected_arrays):
    translated = np.load(opened / "translations" / "input.npy")
    np.testing.assert_allclose(translated, expected_arrays["translated"], rtol=1e-4, atol=1e-5)
    if SAME_BITS:
        assert translated.tobytes() == expected_arrays["translated"].tobytes()


def test_continues_to_the_same_weights(opened, expected_arrays):
    final = old_run.checkpoint_values(opened / "run" / "checkpoints" / f"{old_run.TOTAL:08d}")
    digests = old_run.digests(final)
    described = {name: text.rpartition(" ")[0] for name, text in digests.items()}  # dtype and shape
    assert described == {name: text.rpartition(" ")[0] for name, text in EXPECTED["digests"].items()}
    # Not bit for bit: since then a step on a CPU computes batch norm, logits and norms of gradients by other
    # operations, which round otherwise.
    for name, value in old_run.networks_only(final).items():
        np.testing.assert_allclose(value, expected_arrays[name], rtol=1e-4, atol=1e-4, err_msg=name)
