"""gantry.json of an export: how to use it, and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data import gfile
from engine.exporting.encoded_pictures import pixel_format
from engine.exporting.exported_run import ExportedRun
from engine.exporting.formats import ExportedFile
from engine.exporting.translation import IMAGE, OUTPUT
from engine.pictures.role_format import RoleFormat
from engine.storage.run_directory import RunDirectory

_VERSION = 1
"""Of the format of this file."""


def description(
    run: ExportedRun, files: Sequence[ExportedFile], *, direction: str | None, fast: bool, folded: int
) -> dict[str, Any]:
    """What gantry.json says, in JSON types.

    Args:
      run: that is exported.
      files: of the export.
      direction: "AtoB" or "BtoA"; None is the direction of the run.
      fast: whether the networks are those for fast inference.
      folded: number of batch norms that are folded into convolutions.
    """
    translation, trainer = run.translation, run.trainer
    data, experiment = translation.data, trainer.experiment
    return {
        "version": _VERSION,
        "task": type(experiment.task).__name__,
        "direction": direction or data.direction,
        "inputs": {name: _input(run, name, list(spec.shape)) for name, spec in translation.features.items()},
        "outputs": {
            OUTPUT: _of_role(translation.output_format, [None] * 3 + [translation.output_format.channels])
        },
        "sizes": {
            "trained_height_width": list(run.sizes.trained),
            "multiple": run.sizes.multiple,
            "smallest": run.sizes.smallest,
            "output_by_input": float(run.sizes.factor),
        },
        "network_colour_space": data.colour_space,
        "mode": run.mode,
        "fast": fast,
        "folded_batch_norms": folded,
        "compared_on": f"{run.examples.count} {run.examples.origin}",
        "files": [_file(file) for file in files],
        "run": {
            "workdir": trainer.run_directory.path,
            "position_examples": trainer.examples,
            "step": trainer.step,
            "precision": experiment.precision,
        },
        "data_set": {
            "name": data.dataset,
            "train_examples": data.train_examples,
            "fingerprint_sha256": _fingerprint(trainer.run_directory),
        },
        "versions": _versions(),
        "configuration": trainer.run_directory.read_config(),
    }


def _input(run: ExportedRun, name: str, shape: list[int | None]) -> dict[str, Any]:
    if name == IMAGE:
        return _of_role(run.translation.input_format, shape)
    if len(shape) == 4 and run.translation.map_format is not None:
        return _of_role(run.translation.map_format, shape) | {"colour_space": None}
    more = {"classes": list(run.translation.data.side_classes)} if run.translation.data.side_classes else {}
    return {"dtype": "float32", "shape": shape} | more


def _of_role(role: RoleFormat, shape: list[int | None]) -> dict[str, Any]:
    """Floats as signatures take and give them, and how image files store the same pictures."""
    stored = pixel_format(role)
    return {
        "dtype": "float32",
        "shape": shape,
        "value_range": [-1.0, 1.0],
        "colour_space": {1: "grey", 3: "rgb"}.get(role.channels),
        "stored_as": {
            "dtype": stored.dtype,
            "value_range": list(stored.value_range),
            "channels": stored.channels,
            "alpha": role.stored is not None and role.stored.alpha,
        },
    }


def _file(file: ExportedFile) -> dict[str, Any]:
    found = dataclasses.asdict(file)
    del found["found"]
    psnr_db = file.found.psnr_db
    return found | {
        "largest_difference_in_255ths": file.found.largest_levels,
        "psnr_db_to_run": psnr_db if np.isfinite(psnr_db) else None,
    }


def _fingerprint(run: RunDirectory) -> str | None:
    """Digest of fingerprint.json, which identifies the examples; None of older runs."""
    if not gfile.exists(run.fingerprint):
        return None
    with gfile.open_text(run.fingerprint) as file:
        content = json.load(file)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str | None]:
    return {
        "gantry_commit": _commit(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str | None:
    """The commit of this checkout, with "-dirty" if files have changed; None if it is none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=os.path.dirname(__file__), capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
