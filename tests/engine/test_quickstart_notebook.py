"""The notebook does what it says: its cells run one after the other, with small settings."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "engine" / "quickstart.ipynb"

RECORDING = """
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot
shown = []
matplotlib.pyplot.show = lambda: shown.append(matplotlib.pyplot.gcf().axes[0].images[0].get_array())
"""

AT_THE_END = """
import numpy
numpy.savez(EXPORT + ".npz", *shown[-1:], count=len(shown), output=output, labels=labels, target=target)
"""


@pytest.fixture(scope="module")
def cells():
    """The sources of the code cells."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    found = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in found), "commit it without outputs"
    assert found[0]["metadata"] == {"tags": ["parameters"]}
    return ["".join(cell["source"]) for cell in found]


def test_the_parameters_are_all_that_differs_between_machines(cells):
    names = [target.id for node in ast.parse(cells[0]).body for target in node.targets]
    assert names == ["EXAMPLES", "PICTURES", "SOURCE", "DATA_DIR", "WORKDIR", "EXPORT", "SETTINGS"]
    assert "ON_KAGGLE" in cells[1] and "ON_COLAB" in cells[1]


def test_all_cells_run(cells, tmp_path):
    small = {
        "EXAMPLES": 8,
        "PICTURES": 20,
        "SOURCE": str(tmp_path / "pictures"),
        "DATA_DIR": str(tmp_path / "datasets"),
        "WORKDIR": str(tmp_path / "run"),
        "EXPORT": str(tmp_path / "export"),
        "SETTINGS": [
            "pix2pix.Pix2Pix.generator_filters = 2",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
            "SAMPLE_EVERY = 4",
        ],
    }
    parameters = "\n".join(f"{name} = {value!r}" for name, value in small.items())
    # The notebook writes its preview there.
    others = [cell.replace("runs/notebook/", f"{tmp_path}/") for cell in cells[1:]]
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join([RECORDING, parameters, *others, AT_THE_END]))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT / "engine",  # where Jupyter starts it
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for told in (
        "examples  train 16 in",
        "psnr_db",
        "at 8 examples",
        "report.html",
    ):
        assert told in done.stdout, done.stdout
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == [
        "samples_00000004.png",
        "samples_00000008.png",
    ]
    assert (tmp_path / "export" / "README.md").exists()
    assert list((tmp_path / "export").rglob("saved_model.pb"))
    with np.load(tmp_path / "export.npz") as arrays:
        assert arrays["output"].dtype == np.uint8 and arrays["output"].shape == (128, 128, 3)
        seen = np.concatenate([arrays["labels"], arrays["output"], arrays["target"]], axis=1)
        np.testing.assert_array_equal(arrays["arr_0"], seen)  # the last picture that it shows
        assert arrays["count"] >= 5  # preview, samples, curves, output
    preview = np.asarray(Image.open(tmp_path / "preview.png"))
    assert preview.ndim == 3 and preview.std() > 10
