"""Evaluates a run on a whole split of its data set, or on pairs of pictures in two folders.

  python -m engine.evaluate --workdir=runs/quickstart --split=test
  python -m engine.evaluate --workdir=runs/mine --input=PHOTOS --target=DRAWINGS
  python -m engine.evaluate runs/first runs/second
  python -m engine.evaluate --workdir=runs/mine --split=val --follow

The table also has two baselines that need no training. Files of the same name in both folders are a pair.
They are read and resized as those of the run's data set, which need not be there; without it, one baseline,
the mean training target, is left out.
Metrics of every image go to the directory evaluations of the run, with a picture of the worst and the best.
Two runs are compared image by image: the difference has an interval that tells whether it is chance.
--follow evaluates each new checkpoint of a run that another process trains, until the run is complete.
In a notebook: `from engine.evaluate import evaluate; evaluate(workdir=..., split="test")`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from data.errors import MissingDatasetError
from data.imaging.metric_names import MORE_METRICS
from engine.cli.program import run_program
from engine.errors import ConfigurationError, RunInterruptedError
from engine.evaluation.comparison import compare, comparison_table
from engine.evaluation.metric_choice import check_names
from engine.evaluation.results import SplitEvaluation
from engine.evaluation.text_table import table
from engine.feature_extractor import FeatureExtractor, LearnedMetric
from engine.inference.evaluation_mode import WEIGHTS, EvaluationMode
from engine.inference.following import POLL_SEC, follow_run, wait_for_checkpoint
from engine.inference.restored_run import restore_run
from engine.inference.run_evaluator import RunEvaluator
from engine.inference.run_files import files_text
from engine.pictures.picture_pairs import PicturePairs
from engine.storage.run_directory import RunDirectory
from models.application_features import ApplicationFeatures
from models.lpips import Lpips


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
    weights: str | None = None,
    norm_mode: str | None = None,
    dropout: bool = False,
    metrics: Sequence[str] = (),
    lpips: LearnedMetric | None = None,
    extractor: FeatureExtractor | None = None,
) -> SplitEvaluation:
    """Evaluates a checkpoint of a run, and appends a row to the run's eval.jsonl.

    The "split" of that row is its name, or "INPUT -> TARGET" for pictures in two folders; then, how weights,
    norm, dropout and features differ from those of evaluations in training, as in "test, raw weights, dropout
    on".

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
      weights: "averaged", by EMA, or "raw", those in training; None: averaged where the run averages any.
      norm_mode: what batch norm normalises with: "batch_statistics" of each image, or "moving_statistics";
        None is the run's setting.
      dropout: whether dropout is active. The mask of an image depends on its position in the split only.
      metrics: names of metrics beside the usual five and those of the run, of
        `data.imaging.metric_names.MORE_METRICS`.
      lpips: also measures LPIPS, such as `models.lpips.Lpips`; None leaves that to the run's setting.
      extractor: of the features that KID and FID compare, such as
        `models.application_features.ApplicationFeatures`; None is the run's.

    Raises:
      ConfigurationError: there is no such run or checkpoint, its data set is missing, or an argument cannot
        be used.
      data.errors.DataError: there is no such split, or the data set or a picture cannot be used.
      engine.errors.NonFiniteOutputError: the output of the networks is not finite.
    """
    with _naming_data_dir():
        evaluator = _evaluator(
            workdir,
            checkpoint=checkpoint,
            data_dir=data_dir,
            split=split,
            input=input,
            target=target,
            side_map=side_map,
            side_vector=side_vector,
            weights=weights,
            norm_mode=norm_mode,
            dropout=dropout,
            metrics=metrics,
            lpips=lpips,
            extractor=extractor,
        )
        return evaluator.evaluate()


def follow(*, workdir: str, poll_sec: float = POLL_SEC, **settings: Any) -> Iterator[SplitEvaluation]:
    """Evaluates each checkpoint of a run that another process trains, until the run is complete.

    The networks are built once. Checkpoints whose evaluation is in eval.jsonl already are skipped.

    Args:
      workdir: run directory; the run need not have begun.
      poll_sec: time between two looks at the run directory.
      **settings: those of `evaluate`, without `checkpoint`.

    Yields:
      The evaluation of each checkpoint, in order of their positions.

    Raises:
      ConfigurationError, data.errors.DataError, engine.errors.NonFiniteOutputError: as `evaluate`.
    """
    with _naming_data_dir():
        evaluator = _evaluator(workdir, wait_sec=poll_sec, **settings)
        yield from follow_run(evaluator, poll_sec=poll_sec)


def _evaluator(
    workdir: str,
    *,
    checkpoint: str = "latest",
    data_dir: str | None = None,
    split: str | None = None,
    input: str | None = None,
    target: str | None = None,
    side_map: str | None = None,
    side_vector: str | None = None,
    weights: str | None = None,
    norm_mode: str | None = None,
    dropout: bool = False,
    metrics: Sequence[str] = (),
    lpips: LearnedMetric | None = None,
    extractor: FeatureExtractor | None = None,
    wait_sec: float | None = None,
) -> RunEvaluator:
    """Opens a run for its evaluation; waits for its first checkpoint if `wait_sec` is given."""
    _check_flags(split, input, target, {"side_map": side_map, "side_vector": side_vector})
    mode = EvaluationMode(weights=weights, norm_mode=norm_mode, dropout=dropout)
    check_names(metrics, setting="--metrics")
    if wait_sec is not None:
        wait_for_checkpoint(RunDirectory(workdir), poll_sec=wait_sec)
    trainer = restore_run(workdir, checkpoint=checkpoint, data_dir=data_dir)
    images: str | PicturePairs = split or "test"
    if input is not None and trainer.experiment.task.target_kind is not None:
        raise ConfigurationError(
            f"--input={input}: is for images with targets that are images, and this run predicts labels; "
            "evaluate a split of its data set"
        )
    if input is not None and target is not None:
        images = PicturePairs(
            trainer.experiment.data,
            side_inputs=trainer.experiment.task.side_inputs,
            input=input,
            target=target,
            side_map=side_map,
            side_vector=side_vector,
        )
    return RunEvaluator(trainer, images, mode=mode, metrics=metrics, lpips=lpips, extractor=extractor)


@contextlib.contextmanager
def _naming_data_dir() -> Iterator[None]:
    """Adds the flags that help to the error about a missing data set."""
    try:
        yield
    except MissingDatasetError as error:
        raise ConfigurationError(
            f"{error.what}; name the folder that holds it with --data_dir=DIR, or evaluate pictures with "
            "--input=FOLDER --target=FOLDER"
        ) from error


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
    flags.DEFINE_enum(
        "weights",
        None,
        WEIGHTS,
        "'averaged' by EMA, or 'raw', those in training. Averaged where the run averages any.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "norm_mode",
        None,
        "Batch norm on 'batch_statistics' of the image or on 'moving_statistics'.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dropout", False, "Dropout is active, as when the reference tests pix2pix.", flag_values=values
    )
    flags.DEFINE_list("metrics", [], f"Further metrics: {','.join(MORE_METRICS)}.", flag_values=values)
    flags.DEFINE_list(
        "lpips_weights", [], "Files with the weights of LPIPS, which is then measured.", flag_values=values
    )
    flags.DEFINE_string("lpips_network", "alex", "Network of LPIPS: 'alex' or 'vgg'.", flag_values=values)
    flags.DEFINE_string(
        "features_weights",
        None,
        "Weights of the network whose features KID and FID compare: a file, or 'imagenet' to download them.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "features_network", "InceptionV3", "That network, of keras.applications.", flag_values=values
    )
    flags.DEFINE_bool(
        "follow",
        False,
        "Evaluates each new checkpoint of a run in training, until the run is complete.",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: Sequence[str] = ()) -> None:
    """Runs the program with parsed flags; the other arguments are run directories."""
    runs = [*([values.workdir] if values.workdir else []), *arguments]
    if len(runs) > 2:
        raise ConfigurationError(f"{runs[2]!r}: one run can be evaluated, or two compared; leave it out")
    if not runs:
        raise ConfigurationError("no --workdir given; name the run: --workdir=runs/NAME")
    if values.follow:
        _follow_and_print(values, runs)
        return
    evaluations = [_evaluate_and_print(values, run) for run in runs]
    if len(runs) == 2:
        first, second = runs
        differences = compare(*evaluations, names=(first, second))
        print(comparison_table(differences, names=(first, second)))


def _settings(values: flags.FlagValues) -> dict[str, Any]:
    """The arguments of `evaluate` that flags set, without the run and the checkpoint."""
    for name in ("features", "lpips"):
        network = values[f"{name}_network"]
        if network.value != network.default and not values[f"{name}_weights"].value:
            raise ConfigurationError(
                f"--{name}_network={network.value}: goes with --{name}_weights; give both, or leave it out"
            )
    lpips = extractor = None
    if values.features_weights:
        extractor = ApplicationFeatures(application=values.features_network, weights=values.features_weights)
    if values.lpips_weights:
        lpips = Lpips(network=values.lpips_network, weights=tuple(values.lpips_weights))
    names = "split data_dir input target side_map side_vector weights norm_mode dropout metrics"
    return {name: values[name].value for name in names.split()} | {
        "lpips": lpips,
        "extractor": extractor,
    }


def _evaluate_and_print(values: flags.FlagValues, workdir: str) -> SplitEvaluation:
    evaluation = evaluate(workdir=workdir, checkpoint=values.checkpoint, **_settings(values))
    print(f"{workdir}, {values.checkpoint} checkpoint: {evaluation.position} examples")
    print(table(evaluation, split=evaluation.split))
    print(f"files of the run:\n{files_text(RunDirectory(workdir))}")
    return evaluation


def _follow_and_print(values: flags.FlagValues, runs: Sequence[str]) -> None:
    if len(runs) > 1 or values.checkpoint != "latest":
        raise ConfigurationError(
            "--follow: evaluates all checkpoints of one run; leave out --checkpoint and other runs"
        )
    workdir, count = runs[0], 0
    try:
        for evaluation in follow(workdir=workdir, **_settings(values)):
            count += 1
            print(f"{workdir}: {evaluation.position} examples")
            print(table(evaluation, split=evaluation.split), flush=True)
    except KeyboardInterrupt as error:
        raise RunInterruptedError(
            f"--follow: stopped after {_checkpoints(count)}; the same command continues with the next one"
        ) from error
    print(f"{workdir}: complete; evaluated {_checkpoints(count)}")


def _checkpoints(count: int) -> str:
    return "1 checkpoint" if count == 1 else f"{count} checkpoints"


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags, takes_arguments=True)


if __name__ == "__main__":
    run()
