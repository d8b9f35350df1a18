"""README.md of an export: what it is, how to use it and how good it is; and a grid of samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data import imaging
from data.roles import TARGET
from engine.evaluation.baselines import BASELINES, Baselines
from engine.evaluation.picture_scale import PictureScale
from engine.evaluation.sample_grid import join_columns
from engine.exporting.exported_run import ExportedRun
from engine.exporting.formats import KERAS, ONNX, SAVED_MODEL, TFLITE, ExportedFile
from engine.exporting.translation import IMAGE
from engine.run_reports.quantities import is_higher_better, metric_text, metric_title
from engine.storage.run_directory import read_rows

SAMPLES = "samples.png"


def sample_grid(run: ExportedRun) -> np.ndarray:
    """Input, output and, where there is one, target of each example: uint8 [H, W, 1 or 3]."""
    columns = [run.examples.features[IMAGE], run.expected]
    columns += [] if run.examples.targets is None else [run.examples.targets]
    shown = [imaging.to_uint8(column[..., :3] if column.shape[-1] > 3 else column) for column in columns]
    return np.concatenate(join_columns(shown))


def model_card(run: ExportedRun, files: Sequence[ExportedFile], facts: Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
      run: that is exported.
      files: of the export.
      facts: those of gantry.json.
    """
    name = os.path.basename(os.path.abspath(run.trainer.run_directory.path))
    parts = [
        f"# {name}",
        _summary(run, facts),
        f"![Samples]({SAMPLES})",
        _caption(run),
        "## Files",
        _files(run, files),
        "## Input and output",
        _inputs(facts),
        "## Use",
        *_examples_of_use(name, files, facts),
        "## Quality",
        *_quality(run, facts),
        "## Where it comes from",
        _origin(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(run: ExportedRun, facts: Mapping[str, Any]) -> str:
    direction = f", {facts['direction']}" if facts["direction"] else ""
    folded = facts["folded_batch_norms"]
    fast = "; for fast inference" if facts["fast"] else ""
    fast += f", {folded} batch norms folded into convolutions" if folded else ""
    return (
        f"Translates images: {facts['task']}, trained with Gantry on the data set "
        f"`{facts['data_set']['name']}`{direction}, after {facts['run']['position_examples']:,} examples. "
        f"{run.mode[:1].upper()}{run.mode[1:]}{fast}."
    )


def _caption(run: ExportedRun) -> str:
    columns = "Input and output" if run.examples.targets is None else "Input, output and target"
    return f"{columns}: {run.examples.count} {run.examples.origin}."


def _files(run: ExportedRun, files: Sequence[ExportedFile]) -> str:
    rows = [
        (
            f"`{file.path}`",
            file.dtype,
            f"{file.found.largest_levels:.2g}/255",
            _decibels(file.found.psnr_db),
            "any" if file.any_size else f"{run.sizes.trained[0]}x{run.sizes.trained[1]}",
        )
        for file in files
    ]
    head = ("File", "Weights", "Largest difference from the run", "PSNR to the run", "Size (height x width)")
    notes = [f"- `{file.path}` {note}." for file in files for note in _notes(file)]
    table = _table(head, rows)
    compared = f"Compared on {run.examples.count} {run.examples.origin}."
    return "\n\n".join(filter(None, [table, compared, "\n".join(notes)]))


def _notes(file: ExportedFile) -> list[str]:
    notes = list(file.notes)
    if file.needs_classes:
        notes.append(f"loads only where these classes are: {', '.join(file.needs_classes)}")
    elif file.format == KERAS:
        notes.append("loads with Keras alone")
    return notes


def _decibels(psnr_db: float) -> str:
    return f"{psnr_db:.1f} dB" if np.isfinite(psnr_db) else "equal"


def _inputs(facts: Mapping[str, Any]) -> str:
    sizes = facts["sizes"]
    height, width = sizes["trained_height_width"]
    lines = []
    for kind in ("inputs", "outputs"):
        for name, about in facts[kind].items():
            shape = ", ".join("?" if size is None else str(size) for size in about["shape"])
            line = f"- `{name}`: float32 [{shape}]"
            if "value_range" in about:
                colours = f", {about['colour_space'].upper()}" if about["colour_space"] else ""
                stored = about["stored_as"]
                low, high = stored["value_range"]
                line += f" in [-1, 1]{colours}: {stored['dtype']} pixels of {low:g} to {high:g}"
            if "classes" in about:
                line += f": one number for each of {', '.join(about['classes'])}"
            lines.append(line + ".")
    if sizes["multiple"] is None:
        lines.append(f"- Only pictures of {height}x{width} pixels (height x width).")
    else:
        lines.append(
            f"- Height and width are multiples of {sizes['multiple']}, at least {sizes['smallest']}. The "
            "SavedModel mirrors pictures of other sizes at their border and crops the result; pad them "
            "yourself for the other files."
        )
    lines.append(
        f"- Trained on pictures of {height}x{width} pixels (height x width): what is much smaller or larger "
        "in a picture than there is new to the networks."
    )
    if sizes["output_by_input"] != 1:
        lines.append(f"- The output is {sizes['output_by_input']:g} times as high and wide as the input.")
    return "\n".join(lines)


def _examples_of_use(name: str, files: Sequence[ExportedFile], facts: Mapping[str, Any]) -> list[str]:
    by_format = {file.format: file for file in reversed(files)}
    others = "".join(f", {other}={other}" for other in facts["inputs"] if other != IMAGE)
    parts = []
    if SAVED_MODEL in by_format:
        path = by_format[SAVED_MODEL].path
        parts += [
            "With TensorFlow, without Gantry. `image` is float32 [B, H, W, C] in [-1, 1]:",
            f'```\nmodel = tf.saved_model.load("{path}/1")\n'
            f'output = model.signatures["serving_default"](image=image{others})["output"]\n```',
            "With TensorFlow Serving: `encoded` takes the bytes of JPEG or PNG files and gives those of PNG "
            "files. EXIF orientation is not applied.",
            f'```\ndocker run -p 8501:8501 -v "$PWD/{path}:/models/{name}" -e MODEL_NAME={name} '
            "tensorflow/serving\n"
            f"curl http://localhost:8501/v1/models/{name}:predict -d "
            '\'{"signature_name": "encoded", "inputs": '
            '{"image_bytes": [{"b64": "\'$(base64 -w0 photo.jpg)\'"}]}}\'\n```',
        ]
    if KERAS in by_format:
        parts += [
            "With Keras. The file holds the network alone, in the colour space "
            f"{facts['network_colour_space']!r}:",
            f'```\nnetwork = keras.saving.load_model("{by_format[KERAS].path}")\n```',
        ]
    if TFLITE in by_format:
        parts += [
            "With LiteRT (`pip install ai-edge-litert`), or `tf.lite.Interpreter`:",
            "```\nfrom ai_edge_litert.interpreter import Interpreter\n"
            f'model = Interpreter("{by_format[TFLITE].path}").get_signature_runner()\n'
            f'output = model(image=image{others})["output"]\n```',
        ]
    if ONNX in by_format:
        parts += [
            "With ONNX Runtime:",
            f'```\nmodel = onnxruntime.InferenceSession("{by_format[ONNX].path}")\n'
            'output, = model.run(["output"], {"image": image})\n```',
        ]
    return parts


def _quality(run: ExportedRun, facts: Mapping[str, Any]) -> list[str]:
    position = facts["run"]["position_examples"]
    rows = {
        str(row["split"]): row
        for row in read_rows(run.trainer.run_directory.eval_log)
        if row.get("examples") == position and _is_of_mode(str(row.get("split", "")), run.suffix)
    }
    if not rows:
        return [
            f"The run has not been evaluated at {position:,} examples in this mode. `python -m "
            "engine.evaluate` measures it."
        ]
    parts = []
    if run.trainer.experiment.task.translates_back:
        parts.append("The run translates both ways: metrics of `back` are of the way from targets to inputs.")
    for split, row in rows.items():
        names = [key.removeprefix("metric/") for key in row if key.startswith("metric/")]
        models = {"model": {name: row[f"metric/{name}"] for name in names}}
        models |= _baselines(run, split)
        cells = [
            [
                _heading(name),
                *(
                    _value(name, found.get(name), row if which == "model" else {})
                    for which, found in models.items()
                ),
            ]
            for name in names
        ]
        intervals = ", with 95 % intervals of the mean" if any("metric_low" in key for key in row) else ""
        parts += [f"On the split `{split}`{intervals}:", _table(["", *models], cells)]
    return parts


_MODES = (", raw weights", ", batch norm", ", dropout on", ", no batch norm")


def _is_of_mode(split: str, suffix: str) -> bool:
    return split.endswith(suffix) if suffix else not any(mode in split for mode in _MODES)


def _baselines(run: ExportedRun, split: str) -> dict[str, dict[str, float]]:
    """What an evaluation has kept beside the data set; nothing is measured here."""
    data, trainer = run.trainer.experiment.data, run.trainer
    if not data.is_paired:
        return {}
    kept = Baselines(
        (),
        data=data,
        split=split.removesuffix(run.suffix),
        scale=PictureScale.of(data, TARGET),
        metrics=trainer.evaluator.image_metric_names,
        kept=BASELINES,
    ).load_kept()
    return {f"baseline: {name}": images.means for name, images in kept.items()}


def _heading(name: str) -> str:
    title, unit = metric_title(name)
    better = {True: ", higher is better", False: ", lower is better", None: ""}[is_higher_better(name)]
    return f"{title} ({unit}{better})" if unit else f"{title}{better and f' ({better[2:]})'}"


def _value(name: str, value: float | None, row: Mapping[str, Any]) -> str:
    if value is None:
        return ""
    low, high = (row.get(f"metric_{end}/{name}") for end in ("low", "high"))
    interval = (
        "" if low is None or high is None else f" ({metric_text(name, low)} to {metric_text(name, high)})"
    )
    return metric_text(name, value) + interval


def _origin(facts: Mapping[str, Any]) -> str:
    run, data, versions = facts["run"], facts["data_set"], facts["versions"]
    commit = f", commit {versions['gantry_commit']}" if versions["gantry_commit"] else ""
    return "\n".join(
        [
            f"- Run: `{run['workdir']}`, step {run['step']:,}, {run['precision']}.",
            f"- Data set: `{data['name']}`, {data['train_examples']:,} training examples"
            + (f", fingerprint {data['fingerprint_sha256'][:16]}" if data["fingerprint_sha256"] else "")
            + ".",
            f"- Gantry{commit}; TensorFlow {versions['tensorflow']}, Keras {versions['keras']}.",
            "- `gantry.json` has all of this for programs, and the configuration of the run.",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def png(picture: np.ndarray) -> bytes:
    """A picture, uint8 [H, W, 1 or 3], as PNG."""
    return tf.io.encode_png(picture).numpy()
