"""Exports a run, so that other programs translate pictures with it, without Gantry.

  python -m engine.export --workdir=runs/mine --output=exports/mine
  python -m engine.export --workdir=runs/mine --output=exports/phone --format=tflite --dtype=float16,int8

The folder gets, as --format asks for, a SavedModel (with signatures for batches of floats, and for the bytes
of image files), the generator as a .keras file, TFLite and ONNX files. Beside them lie gantry.json, which
says how to use them and where they come from, and README.md, a model card with samples. Each file is compared
with the run; one of float32 that differs by more than 1/255 is refused.
In a notebook: `from engine.export import export; export(workdir="runs/mine", output="exports/mine")`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from absl import flags

from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.exporting import onnx_file
from engine.exporting.export_folder import DESCRIPTION, REMEDY, new_export
from engine.exporting.exported_run import ExportedRun, open_for_export
from engine.exporting.formats import DTYPES, ONNX, ExportedFile, FormatWriter
from engine.exporting.model_card import SAMPLES, model_card, png, sample_grid
from engine.exporting.provenance import description
from engine.inference.evaluation_mode import EvaluationMode
from engine.storage.file_errors import reraise_write_errors


def export(
    *,
    workdir: str,
    output: str,
    formats: Sequence[str] = ("saved_model",),
    dtypes: Sequence[str] = ("float32",),
    checkpoint: str = "latest",
    weights: str | None = None,
    norm_mode: str | None = None,
    direction: str | None = None,
    fast: bool = False,
    examples: int = 4,
    calibration_examples: int = 100,
    data_dir: str | None = None,
    overwrite: bool = False,
) -> list[ExportedFile]:
    """Exports a run. This is the whole program, for a notebook.

    Args:
      workdir: run directory.
      output: folder of the export, which must not exist.
      formats: of "saved_model", "keras", "tflite" and "onnx".
      dtypes: of the weights: "float32", "float16" and, for TFLite, "int8". Each format is written in each of
        them that it knows.
      checkpoint: "latest", "best", or a position in examples.
      weights: "averaged", by EMA, or "raw", those in training; None: averaged where the run averages any.
      norm_mode: what batch norm normalises with: "batch_statistics" of each picture, or
        "moving_statistics". None is the run's setting.
      direction: "AtoB" or "BtoA", for runs that translate both ways (CycleGAN); None is that of the run.
      fast: whether batch norms with moving statistics are folded into the convolutions, and layers replaced
        by Keras's own, without dropout.
      examples: on which the files are compared with the run, and which the model card shows.
      calibration_examples: of the training split, with which "int8" is calibrated.
      data_dir: folder of the prepared data sets; None is that of the run.
      overwrite: whether an export in `output` is replaced.

    Returns:
      The files.

    Raises:
      ConfigurationError: a flag or the run cannot be used, a file cannot be written, or one of float32
        differs from the run. Nothing is written then.
      engine.errors.NonFiniteOutputError: an output is not finite.
      data.errors.DataError: the data set of an older run, which has not recorded it, cannot be read.
    """
    wanted = _wanted(formats, dtypes)
    _check_counts(examples=examples, calibration_examples=calibration_examples)
    mode = EvaluationMode(weights=weights, norm_mode=norm_mode)
    if ONNX in formats:
        onnx_file.check_packages()
    with new_export(output, overwrite=overwrite) as folder:
        run = open_for_export(
            workdir,
            checkpoint=checkpoint,
            mode=mode,
            direction=direction,
            data_dir=data_dir,
            examples=examples,
        )
        writer = FormatWriter(
            run, folder, output=output, fast=fast, calibration_examples=calibration_examples
        )
        files = [writer.write(*each) for each in wanted]
        writer.close()
        facts = description(run, files, direction=direction, fast=fast, folded=writer.folded)
        with reraise_write_errors(f"--output={output}", remedy=REMEDY):
            _write(folder, "README.md", model_card(run, files, facts).encode())
            _write(folder, SAMPLES, png(sample_grid(run)))
            _write(folder, DESCRIPTION, (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode())
    _show(run, files, output, fast=fast, folded=writer.folded)
    return files


def _wanted(formats: Sequence[str], dtypes: Sequence[str]) -> list[tuple[str, str]]:
    """Each format with each dtype that it knows.

    Raises:
      ConfigurationError: a name is unknown, or none of the formats knows a dtype.
    """
    if not formats or not dtypes:
        raise ConfigurationError(
            "--format, --dtype: must name at least one each; leave them out for the default"
        )
    for name in formats:
        if name not in DTYPES:
            raise ConfigurationError(f"--format={name}: unknown; use {', '.join(DTYPES)}, or several of them")
    for name in dtypes:
        known = [format for format in DTYPES if name in DTYPES[format]]
        if not known:
            raise ConfigurationError(
                f"--dtype={name}: unknown; use float32, float16 or int8, or several of them"
            )
        if not set(known) & set(formats):
            raise ConfigurationError(
                f"--dtype={name}: not known in the format {', '.join(formats)}; add --format={known[-1]}"
            )
    pairs = [(format, dtype) for format in formats for dtype in dtypes if dtype in DTYPES[format]]
    left_out = [format for format in formats if format not in dict(pairs)]
    if left_out:
        raise ConfigurationError(
            f"--format={left_out[0]}: only has {', '.join(DTYPES[left_out[0]])}; add --dtype=float32, or "
            "leave the format out"
        )
    return list(dict.fromkeys(pairs))


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigurationError(f"--{name}={count}: must be at least 1; raise it")


def _write(folder: str, name: str, content: bytes) -> None:
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)


def _show(run: ExportedRun, files: Sequence[ExportedFile], output: str, *, fast: bool, folded: int) -> None:
    trainer = run.trainer
    print(f"exported {trainer.run_directory.path} at {trainer.examples} examples into {output}")
    print(f"{run.mode}; compared on {run.examples.count} {run.examples.origin}")
    if fast:
        print(_fast_line(run, folded))
    for file in files:
        size = "any size" if file.any_size else "the size of the training only"
        print(f"  {file.path:<24} {file.dtype:<8} {file.found}; {size}")
        if file.needs_classes:
            print(f"    loads only where these classes are: {', '.join(file.needs_classes)}")
    if not run.is_exact:
        precision = trainer.experiment.precision
        print(f"note: the run computes in {precision} and its exports do not, so more than rounding differs")


def _fast_line(run: ExportedRun, folded: int) -> str:
    if folded:
        return f"{folded} batch norms folded into convolutions"
    if "batch_statistics" in run.mode:
        return (
            "no batch norm folded, because they use the statistics of each picture; "
            "--norm_mode=moving_statistics folds them, and changes the pictures"
        )
    return "no batch norm to fold"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    for name, default, text in (
        ("workdir", None, "Run directory."),
        ("output", None, "Folder of the export; it must not exist."),
        ("checkpoint", "latest", "'latest', 'best', or a position in examples."),
        ("weights", None, "'averaged' or 'raw'; averaged where the run averages any."),
        ("norm_mode", None, "Batch norm on 'batch_statistics' of the picture or on 'moving_statistics'."),
        ("direction", None, "AtoB or BtoA, if the run translates both ways, as CycleGAN does."),
        ("data_dir", None, "Folder of the prepared data sets, if it has moved."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_list("format", ["saved_model"], "saved_model, keras, tflite, onnx.", flag_values=values)
    flags.DEFINE_list("dtype", ["float32"], "Of the weights: float32, float16, int8.", flag_values=values)
    flags.DEFINE_bool(
        "fast", False, "Fold batch norms with moving statistics into convolutions.", flag_values=values
    )
    flags.DEFINE_integer("examples", 4, "Compared with the run, and shown.", flag_values=values)
    flags.DEFINE_integer("calibration_examples", 100, "Of the training split, for int8.", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "Replace an export in --output.", flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    if not values.output:
        raise ConfigurationError("no --output given, such as --output=exports/mine")
    export(
        workdir=values.workdir or "",
        output=os.path.expanduser(values.output),
        formats=values.format,
        dtypes=values.dtype,
        checkpoint=values.checkpoint,
        weights=values.weights,
        norm_mode=values.norm_mode,
        direction=values.direction,
        fast=values.fast,
        examples=values.examples,
        calibration_examples=values.calibration_examples,
        data_dir=values.data_dir,
        overwrite=values.overwrite,
    )


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
