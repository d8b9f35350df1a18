"""Evaluates a run on a whole split of its data set, or on pairs of pictures in two folders.

  python -m engine.evaluate --workdir=runs/quickstart --split=test
  python -m engine.evaluate --workdir=runs/mine --input=PHOTOS --target=DRAWINGS
  python -m engine.evaluate runs/first runs/second

The table also has two baselines that need no training. Files of the same name in both folders are a pair.
They are read and resized as those of the run's data set, which need not be there; without it, one baseline,
the mean training target, is left out.
Metrics of every image go to the directory evaluations of the run, with a picture of the worst and the best.
Two runs are compared image by image: the difference has an interval that tells whether it is chance.
In a notebook: `from engine.evaluate import evaluate; evaluate(workdir=..., split="test")`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import tensorflow as tf
from absl import flags

from data import gfile
from data.errors import DataError, MissingDatasetError
from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.evaluation.baselines import BASELINES, INPUT_ITSELF
from engine.evaluation.comparison import compare, comparison_table
from engine.evaluation.contact_sheet import Extremes
from engine.evaluation.details import write_details
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.results import Evaluation
from engine.evaluation.text_table import table
from engine.inference.picture_log import print_notes
from engine.inference.picture_pairs import PicturePairs
from engine.opened_run import open_run
from engine.outer_loop.trainer import Trainer
from engine.reporting.log_rows import evaluation_row, interval_row
from engine.storage.run_directory import RunDirectory, append_row, read_rows


def evaluate(
    *,
    workdir: str,
    split: str | None = None,
    checkpoint: str = "latest",
    data_dir: str | None = None,
    input: str | None = None,
    target: str | None = None,
    side_map: str | None = None,
    side_vector: str | None = None,
) -> Evaluation:
    """Evaluates a checkpoint of a run, and appends a row to the run's eval.jsonl.

    The "split" of that row is its name, or "INPUT -> TARGET" for pictures in two folders.

    Args:
      workdir: run directory.
      split: name of a split of the run's data set; None is "test", unless there are folders.
      checkpoint: "latest", "best", or a position in examples.
      data_dir: folder of the prepared data sets, if it is not that of the training.
      input: folder of pictures to translate, instead of a split; they are the inputs of the run, whatever its
        direction is.
      target: folder with the picture wanted for each of them: of the same name and size.
      side_map: folder with a map for each of them, if the run's networks take maps.
      side_vector: side information for all of them, if the run's networks take a vector: numbers such as
        "0.3,1", or the name of a class of the run's data set.

    Raises:
      ConfigurationError: there is no such run or checkpoint, its data set is missing, or an argument cannot
        be used.
      data.errors.DataError: there is no such split, or the data set or a picture cannot be used.
      engine.errors.NonFiniteOutputError: the output of the networks is not finite.
    """
    extremes = Extremes()
    _check_flags(split, input, target, {"side_map": side_map, "side_vector": side_vector})
    try:
        trainer = open_run(workdir, checkpoint=checkpoint, data_dir=data_dir)
        if input is None or target is None:
            split = split or "test"
            evaluation = trainer.evaluator.evaluate(split, baselines=BASELINES, extremes=extremes)
        else:
            pairs = PicturePairs(
                trainer.experiment.data,
                side_inputs=trainer.experiment.task.side_inputs,
                input=input,
                target=target,
                side_map=side_map,
                side_vector=side_vector,
            )
            split, evaluation = pairs.split, _evaluate_pairs(trainer, pairs, extremes)
    except MissingDatasetError as error:
        raise ConfigurationError(
            f"{error.what}; name the folder that holds it with --data_dir=DIR, or evaluate pictures with "
            "--input=FOLDER --target=FOLDER"
        ) from error
    row = evaluation_row(evaluation, split=split, step=trainer.step, examples=trainer.examples)
    append_row(trainer.run_directory.eval_log, row | interval_row(evaluation))
    write_details(trainer.run_directory, evaluation, extremes, split=split, examples=trainer.examples)
    return evaluation


def _evaluate_pairs(trainer: Trainer, pairs: PicturePairs, extremes: Extremes) -> Evaluation:
    baselines: tuple[str, ...] = BASELINES
    try:
        pairs.evaluation("train", batch=1)
    except (DataError, ConfigurationError) as error:
        reason = error.what if isinstance(error, MissingDatasetError) else error
        print(f"note: without the baseline of the mean training target: {reason}")
        baselines = (INPUT_ITSELF,)
    evaluator = Evaluator(
        task=trainer.experiment.task,
        devices=trainer.devices,
        data=pairs,
        networks=trainer.state.evaluation_networks,
        extractor=trainer.experiment.feature_extractor,
    )
    evaluation = evaluator.evaluate(pairs.split, baselines=baselines, extremes=extremes)
    print_notes(pairs.notes_of_pictures, pictures=evaluation.examples * pairs.pictures_of_example)
    return evaluation


def _check_flags(
    split: str | None, input: str | None, target: str | None, of_pictures: Mapping[str, str | None]
) -> None:
    """Raises ConfigurationError for flags that exclude or need each other."""
    if (input is None) != (target is None):
        given, missing = ("input", "target") if target is None else ("target", "input")
        raise ConfigurationError(
            f"--{given}={input or target}: needs --{missing} too; give the folders of both images of a pair"
        )
    if input is not None and split is not None:
        raise ConfigurationError(f"--split={split}, --input={input}: exclude each other; give one of them")
    for name, value in of_pictures.items():
        if input is None and value is not None:
            raise ConfigurationError(f"--{name}={value}: goes with --input and --target; leave it out")


def _files(run: RunDirectory) -> str:
    """Lists the files of the run directory, one line each."""
    described = (
        (run.config, "configuration of the run"),
        (run.data, "what the run knows of its data set"),
        (run.train_log, "one row for each log event"),
        (run.eval_log, "one row for each evaluation"),
        (run.evaluations, "metrics of every image; the worst and the best images"),
        (run.console_log, "console output"),
        (run.checkpoints, "checkpoints"),
        (run.best, "the best checkpoint on the validation split"),
        (run.samples, "image grids of fixed inputs"),
        (run.tensorboard, "for tensorboard --logdir"),
        (run.micro_batch, "largest micro-batch that fits into memory"),
        (run.done, "the run is complete"),
    )
    lines = []
    for path, what in described:
        if tf.io.gfile.isdir(path):
            names = gfile.list_dir(path)
            path = os.path.join(path, names[-1] if len(names) == 1 else f"({len(names)} entries)")
        elif not tf.io.gfile.exists(path):
            continue
        lines.append(f"  {path:<48} {what}")
    return "\n".join(lines)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    for name, default, text in (
        ("workdir", None, "Run directory."),
        ("split", None, "Split to evaluate: 'test', unless --input and --target are given."),
        ("checkpoint", "latest", "'latest', 'best', or the position of a checkpoint in examples."),
        ("data_dir", None, "Folder of the prepared data sets, if it is not that of the training."),
        ("input", None, "Folder of pictures to translate, instead of a split."),
        ("target", None, "Folder with the picture wanted for each of them, of the same name."),
        ("side_map", None, "Folder with a map for each of them, if the run takes maps."),
        (
            "side_vector",
            None,
            "Side information for all of them, if the run takes it: numbers such as 0.3,1, or a class.",
        ),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)


def main(values: flags.FlagValues, arguments: Sequence[str] = ()) -> None:
    """Runs the program with parsed flags; the other arguments are run directories."""
    runs = [*([values.workdir] if values.workdir else []), *arguments]
    if len(runs) > 2:
        raise ConfigurationError(f"{runs[2]!r}: one run can be evaluated, or two compared; leave it out")
    if not runs:
        raise ConfigurationError("no --workdir given; name the run: --workdir=runs/NAME")
    evaluations = [_evaluate_and_print(values, run) for run in runs]
    if len(runs) == 2:
        first, second = runs
        differences = compare(*evaluations, names=(first, second))
        print(comparison_table(differences, names=(first, second)))


def _evaluate_and_print(values: flags.FlagValues, workdir: str) -> Evaluation:
    evaluation = evaluate(
        workdir=workdir,
        split=values.split,
        checkpoint=values.checkpoint,
        data_dir=values.data_dir,
        input=values.input,
        target=values.target,
        side_map=values.side_map,
        side_vector=values.side_vector,
    )
    measured = read_rows(RunDirectory(workdir).eval_log)[-1]
    print(f"{workdir}, {values.checkpoint} checkpoint: {measured['examples']} examples")
    print(table(evaluation, split=measured["split"]))
    print(f"files of the run:\n{_files(RunDirectory(workdir))}")
    return evaluation


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags, takes_arguments=True)


if __name__ == "__main__":
    run()
