"""Prepares images for training: writes them as a TFDS data set of TFRecord files.

    python -m data.prepare --layout=side_by_side --source=facades --name=facades
    python -m data.prepare --layout=paired --source=noisy --match_a='(.*)_x' --match_b='(.*)_y' --name=noise
    python -m data.prepare --layout=unpaired --source=horse2zebra --name=horses
    python -m data.prepare --layout=labelled --source=flowers --name=flowers
    python -m data.prepare --layout=labelled --source=faces --targets=ages.csv --name=ages
    python -m data.prepare --layout=tfds --name=cycle_gan/horse2zebra

Layouts:
  side_by_side  Each file is a pair: A is the left half, B the right half.
  paired        Files with the same name in two folders are A and B. Or one folder and two patterns.
  unpaired      Two folders of images that do not correspond.
  single        One folder of images.
  labelled      A folder of images for each class; or images and a CSV file of their classes or numbers.
  tfds          A public data set of TensorFlow Datasets, which downloads it if it is not there.

Splits: A source with folders train, val and test keeps them; for paired and unpaired, they may also be named
trainA, trainB, ... or train_A, train_B, ... or A/train, B/train, ... Any other source is divided at random.

Supported formats: JPEG, PNG, BMP, GIF, WebP, TIFF and raw video (.yuv, .y4m); each frame is an image.

An example that cannot be used is skipped and reported. With --strict it stops the program instead. The exit
code is 0 when the data set is prepared, 2 for a wrong input, 1 for an interruption or any other error. If the
program does not finish, no data set is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from absl import flags

import data.quiet_tensorflow  # noqa: F401
from data import gfile
from data.errors import DataError
from data.formats.image_info import MAX_PIXELS
from data.formats.raw_video import VideoFormat
from data.preparation import prepare_flags, tfds_catalog
from data.preparation.folder_preparation import FolderPreparation
from data.preparation.folder_reader import FolderReader
from data.preparation.report import Report
from data.preparation.side_files import MAP_VALUES, SideFiles
from data.preparation.splits import Division
from data.preparation.survey import ImageReader
from data.preparation.targets import Targets
from data.synthetic import facades
from engine.cli import program


def prepare(
    *,
    layout: str,
    source: gfile.Path | None = None,
    name: str,
    data_dir: gfile.Path = "datasets",
    match_a: str | None = None,
    match_b: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    group: str | None = None,
    split_lists: str | None = None,
    video: VideoFormat | None = None,
    side_vector: str | None = None,
    side_classes: str | None = None,
    side_map: str | None = None,
    side_map_kind: str = MAP_VALUES,
    targets: str | None = None,
    target_kind: str | None = None,
    labels: Sequence[str] = (),
    value_range: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
    max_pixels: int = MAX_PIXELS,
    readers: int = 8,
    threads: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> Report:
    """Prepares images for training, as the command line does.

    Every image is decoded completely, so that damage is found now and not during training; float32 images
    are decoded twice if their value range has to be measured. An example with an image that cannot be used is
    skipped. If this raises, nothing is left in data_dir.

    Args:
      layout: a key of `data.preparation.layouts.LAYOUTS`; or "tfds", which takes name, data_dir and source
        only (see `data.preparation.tfds_catalog.prepare_public`).
      source: folder of the images, with or without folders train, val, test.
      name: of the data set: lower-case letters, digits and underscores, beginning with a letter.
      data_dir: folder of the prepared data sets; nothing is written anywhere else.
      match_a: as of `data.preparation.folder_reader.FolderReader`.
      match_b: as of `data.preparation.folder_reader.FolderReader`.
      val_fraction: as of `data.preparation.splits.Division`.
      test_fraction: as of `data.preparation.splits.Division`.
      group: as of `data.preparation.splits.Division`.
      split_lists: as of `data.preparation.splits.Division`.
      video: how raw video is read.
      side_vector: `vector` of `data.preparation.side_files.SideFiles`.
      side_classes: `classes` of `data.preparation.side_files.SideFiles`.
      side_map: `maps` of `data.preparation.side_files.SideFiles`.
      side_map_kind: `map_kind` of `data.preparation.side_files.SideFiles`.
      targets: `path` of `data.preparation.targets.Targets`, for layout labelled.
      target_kind: `kind` of `data.preparation.targets.Targets`.
      labels: "A", "B" or both: images whose values are classes (ids, or the colours of a palette). They are
        never interpolated, and only geometric augmentations apply to them.
      value_range: as of `data.preparation.survey.ImageReader`.
      max_pixels: as of `data.preparation.survey.ImageReader`.
      readers: smallest number of files per split, unless there are fewer examples.
      threads: images read and encoded in parallel; None is one per CPU. The result does not depend on it.
      strict: an image that cannot be used or is in two splits is an error.
      overwrite: replace a prepared data set of this name.

    Returns:
      A `Report`.

    Raises:
      DataError: the source or an argument cannot be used, or no training example remains.
    """
    division = Division(
        val_fraction=val_fraction, test_fraction=test_fraction, group=group, split_lists=split_lists
    )
    video = video or VideoFormat()
    image_reader = ImageReader(
        video=video,
        max_pixels=max_pixels,
        value_range=value_range,
        threads=threads if threads is not None else os.cpu_count() or 1,
    )
    folder_reader = FolderReader(video=video, match_a=match_a, match_b=match_b)
    side_files = SideFiles(vector=side_vector, classes=side_classes, maps=side_map, map_kind=side_map_kind)
    of_images = Targets(path=targets, kind=target_kind)
    if of_images != Targets() and layout != "labelled":
        raise DataError(f"targets: are for layout labelled; leave them out with layout {layout}")
    if layout == "tfds":
        options = (division, value_range, video, match_a, side_files, tuple(labels), strict, overwrite)
        if options != (Division(), None, VideoFormat(), None, SideFiles(), (), False, False):
            raise DataError(
                "layout tfds: takes name, data_dir and source only; leave out the options of images"
            )
        return tfds_catalog.prepare_public(name=name, data_dir=data_dir, source=source)
    if source is None:
        raise DataError(f"source: layout {layout} needs the folder of the images; give it")
    if name == facades.NAME:
        raise DataError(f"name {name!r}: is the name of the built-in data set; choose another")
    return FolderPreparation(
        layout=layout,
        source=os.fspath(source),
        name=name,
        data_dir=os.fspath(data_dir),
        division=division,
        folder_reader=folder_reader,
        image_reader=image_reader,
        side_files=side_files,
        targets=of_images if layout == "labelled" else None,
        labels=tuple(dict.fromkeys(labels)),
        readers=readers,
        strict=strict,
        overwrite=overwrite,
    ).run()


def main(values: flags.FlagValues) -> None:
    """Runs `prepare` with the flags and prints its report."""
    try:
        report = prepare(**prepare_flags.arguments(values))
    except OSError as error:
        raise DataError(str(error)) from error
    except KeyboardInterrupt:
        # Not the exit code of an interrupted training: there is no checkpoint to resume from.
        sys.exit(program.print_error("interrupted: no data set was written; start again", 1))
    print(report)


def run() -> None:
    """Entry point of the console script."""
    program.run_program(main, prepare_flags.define)


if __name__ == "__main__":
    run()
