"""Writes a contact sheet of training examples as the network sees them: resized, cropped and augmented.

python -m engine.preview --gin_file=gin/pix2pix.gin --gin_param='DATASET = "mine"' --output=preview.png
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from absl import flags

from data import gfile
from data.roles import INPUT, SIDE_MAP, TARGET
from engine.cli.gin_flags import define_gin_flags
from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.evaluation.sample_grid import join_columns, write_png
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.input_pipeline.pictures import map_to_picture, to_picture
from engine.storage.file_errors import reraise_write_errors
from engine.task import Task
from engine.training_data import TrainingData, target_kind

_GAP_PIXELS = 8
_SHEET_RATIO = 16 / 9  # approximate width / height of the sheet


def contact_sheet(data: TrainingData, task: Task, *, examples: int, position_examples: int = 0) -> np.ndarray:
    """Shows the examples that training draws from a position on.

    Args:
      data: the data set.
      task: its `input_picture` shows the input as the networks see it.
      examples: how many.
      position_examples: examples drawn before the first one.

    Returns:
      uint8 [H, W, 1 or 3]: input, map (if there is one) and target (if it is an image) of each example, row
      by row, with white gaps between examples.
    """
    with reraise_record_errors(data, "train", position_examples):
        batch = next(iter(data.batches(position_examples=position_examples, global_batch=examples)))
    shown = [to_picture(data, task.input_picture(batch), role=INPUT)]
    if target_kind(data) is None:
        shown.append(to_picture(data, batch[TARGET]))
    if SIDE_MAP in batch:
        shown.insert(1, map_to_picture(data, batch[SIDE_MAP]))
    pairs = join_columns(shown)
    pairs = np.pad(
        pairs, [(0, 0), (0, _GAP_PIXELS), (0, _GAP_PIXELS), (0, 0)], constant_values=255
    )  # [examples, H + gap, roles * W + gap, C]
    columns = max(1, round(math.sqrt(examples * pairs.shape[1] / pairs.shape[2] * _SHEET_RATIO)))
    rows = math.ceil(examples / columns)
    blank = np.full_like(pairs[:1], 255).repeat(rows * columns - examples, axis=0)
    cells = np.concatenate([pairs, blank]).reshape(rows, columns, *pairs.shape[1:])
    sheet = np.concatenate(np.concatenate(cells, axis=1), axis=1)
    return sheet[:-_GAP_PIXELS, :-_GAP_PIXELS]


def preview(
    *,
    gin_files: Sequence[str],
    gin_params: Sequence[str] = (),
    output: str,
    examples: int = 16,
    position_examples: int = 0,
) -> None:
    """Writes the contact sheet of a configuration as PNG. This is the whole program, for a notebook.

    Args:
      gin_files: configuration files.
      gin_params: overrides, such as "CROP_SIZE = 64".
      output: path of the PNG.
      examples: how many are shown.
      position_examples: examples drawn before the first one.

    Raises:
      ConfigurationError: a setting or flag cannot be used.
      data.errors.DataError: the data set cannot be used.
    """
    if examples < 1 or position_examples < 0:
        raise ConfigurationError(
            f"--examples={examples} --position={position_examples}: need at least 1 example and a position "
            "of at least 0; change them"
        )
    experiment, _ = loader.load_experiment(gin_files=gin_files, gin_params=gin_params)
    experiment = experiment.with_data_lengths()
    sheet = contact_sheet(
        experiment.data,
        experiment.task,
        examples=examples,
        position_examples=position_examples,
    )
    with reraise_write_errors(f"--output={output}", remedy="choose another path"):
        with gfile.new_dir(os.path.dirname(output) or os.curdir):
            write_png(output, sheet)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    define_gin_flags(values)
    flags.DEFINE_string("output", "preview.png", "The PNG to write.", flag_values=values)
    flags.DEFINE_integer("examples", 16, "Number of examples.", flag_values=values)
    flags.DEFINE_integer("position", 0, "Examples drawn before the first one.", flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    if not values.gin_file:
        raise ConfigurationError("no --gin_file given, such as --gin_file=gin/quickstart.gin")
    preview(
        gin_files=values.gin_file,
        gin_params=values.gin_param,
        output=os.path.expanduser(values.output),
        examples=values.examples,
        position_examples=values.position,
    )
    print(f"wrote {values.output}: {values.examples} examples, inputs beside targets that are images")


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
