"""Prepares images for training: writes them as a TFDS data set of TFRecord shards.

    python -m data.prepare --layout=side_by_side --source=facades --name=facades
    python -m data.prepare --layout=paired --source=noisy --match_a='(.*)_x' --match_b='(.*)_y' --name=noise
    python -m data.prepare --layout=unpaired --source=horse2zebra --name=horses
    python -m data.prepare --layout=tfds --name=cycle_gan/horse2zebra

Layouts: side_by_side, where one file holds A (left half) and B (right half); paired, where files of one name
in two folders are A and B (or files of two patterns in one folder); unpaired, two folders that do not
correspond, or trainA, trainB, testA, testB; single, one folder; tfds, a public data set of TensorFlow
Datasets. A source has folders train, val, test, or is divided. Raw video (.yuv, .y4m) counts as its frames.
What cannot be used is left out and named; with --strict it ends the program instead.
"""

import functools
import os
import re
import signal
import sys

from absl import app, flags, logging

import data.quiet_tensorflow  # noqa: F401
from data.errors import DataError
from data.formats import image_reader
from data.formats.raw_video import VideoFormat
from data.preparation import prepare_flags, splits, tfds_catalog, tfds_writer
from data.preparation.example_encoder import ExampleEncoder
from data.preparation.layouts import FolderReader, check_strict
from data.preparation.report import Report
from data.preparation.side_files import SideFiles
from data.preparation.survey import ImageReader, survey
from data.synthetic import facades


def prepare(
    *,
    layout: str,
    source: str | os.PathLike | None = None,
    name: str,
    data_dir: str | os.PathLike = "datasets",
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
    value_range: tuple[float, float] | None = None,
    max_pixels: int = image_reader.MAX_PIXELS,
    readers: int = 8,
    threads: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> Report:
    """Prepares images for training; all that the binary does.

    Every image is decoded completely once, so that a damaged one is found now and not in training; those
    of float32 twice if their value range is to be measured. What cannot be used is left out with its
    whole example. Nothing is left in data_dir unless all went well.

    Args:
      layout: a key of `data.preparation.layouts.LAYOUTS`, or "tfds", which takes name, data_dir and
      source only
        (`data.preparation.tfds_catalog.prepare_public`).
      source: folder of the images, with folders train, val, test or without.
      name: of the data set: lower-case letters, digits and underscores, a letter first.
      data_dir: folder of the prepared data sets; nothing is written elsewhere.
      match_a, match_b: as of `data.preparation.layouts.FolderReader`.
      val_fraction, test_fraction, group, split_lists: as of `data.preparation.splits.Division`.
      video: how raw video is read.
      side_vector, side_classes, side_map: as `vector`, `classes`, `maps` of
      `data.preparation.side_files.SideFiles`.
      value_range, max_pixels: as of `data.preparation.survey.ImageReader`.
      readers: least number of shards of a split, as far as it has examples.
      threads: images read and encoded at a time; None is one for each CPU. The result is the same.
      strict: an image that cannot be used, or that stands in two splits, is an error.
      overwrite: replace a prepared data set of this name.

    Returns:
      A `Report`.

    Raises:
      DataError: the source or an argument cannot be used, or nothing is left to train on.
    """
    division = splits.Division(
        val_fraction=val_fraction, test_fraction=test_fraction, group=group, split_lists=split_lists
    )
    video = video or VideoFormat()
    reader = ImageReader(
        video=video,
        max_pixels=max_pixels,
        value_range=value_range,
        threads=threads if threads is not None else os.cpu_count() or 1,
    )
    folders = FolderReader(video=video, match_a=match_a, match_b=match_b)
    side_files = SideFiles(vector=side_vector, classes=side_classes, maps=side_map)
    if layout == "tfds":
        changed = (division, reader.value_range, video, match_a, side_files, strict, overwrite)
        if changed != (splits.Division(), None, VideoFormat(), None, SideFiles(), False, False):
            raise DataError(
                "layout tfds: takes name, data_dir and source only; leave out what is for images"
            )
        return tfds_catalog.prepare_public(name=name, data_dir=data_dir, source=source)
    if source is None:
        raise DataError(f"source: layout {layout} needs the folder of the images; give it")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(f"name {name!r}: must be lower-case letters, digits and underscores, a letter first")
    if name == facades.NAME:
        raise DataError(f"name {name!r}: belongs to the built-in data set; choose another")
    if readers < 1:
        raise DataError(f"readers = {readers}: must be at least 1")
    tfds_writer.check_free(name=name, data_dir=data_dir, overwrite=overwrite)
    source = os.fspath(source)
    found = splits.find_examples(layout=layout, source=source, division=division, reader=folders)
    attached = side_files.attach(found, layout=layout, video=video)
    surveyed = survey(
        layout=layout, splits=attached.splits, reader=reader, has_maps=side_files.maps is not None
    )
    refused = [*found.refused, *attached.refused, *surveyed.refused]
    if strict:
        check_strict(refused)
    splits.check_trainable(surveyed.splits, layout=layout, source=source, refused=refused)
    storing = ExampleEncoder(layout=layout, survey=surveyed, reader=reader, strict=strict)

    def metadata():
        everything_refused = [*refused, *storing.refused]
        splits.check_trainable(storing.stored, layout=layout, source=source, refused=everything_refused)
        if strict:
            _check_no_duplicates(storing.duplicates())
        return {
            "layout": layout,
            **surveyed.smallest(storing.stored),
            **attached.metadata,
            **({"channels": surveyed.domain_channels} if surveyed.domain_channels else {}),
            **({"refused": [refusal.reason for refusal in everything_refused]} if everything_refused else {}),
        }

    with storing.progress:
        tfds_writer.write_dataset(
            name=name,
            data_dir=data_dir,
            features={feature: stored.feature() for feature, stored in surveyed.formats.items()}
            | attached.features,
            splits={split: functools.partial(storing.examples, split) for split in surveyed.splits},
            metadata=metadata,
            examples_per_shard={
                split: tfds_writer.examples_per_shard(
                    examples=len(examples), record_bytes=surveyed.record_bytes[split], readers=readers
                )
                for split, examples in surveyed.splits.items()
            },
            overwrite=overwrite,
        )
    shortest_edge, longest_edge = surveyed.sides(storing.stored)
    return Report.of(
        name,
        data_dir,
        measured=surveyed.measured,
        shortest_edge=shortest_edge,
        longest_edge=longest_edge,
        kept=storing.kept,
        re_encoded=storing.re_encoded,
        refused=tuple(refusal.reason for refusal in [*refused, *storing.refused]),
        duplicates=tuple(storing.duplicates()),
        ignored=tuple(found.ignored),
        unlisted=len(found.unlisted),
        groups=found.groups,
    )


def _check_no_duplicates(duplicates):
    if duplicates:
        more = f", and {len(duplicates) - 1} more are doubled" if len(duplicates) > 1 else ""
        raise DataError(
            f"{duplicates[0]}{more}: strict allows no image in two splits; remove one of each or use group"
        )


def main(argv, values):
    """Runs `prepare` with the flags and prints its report; gives the exit code."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise DataError(f"{argv[1]!r}: unexpected argument; every option is a flag, see --help")
        report = prepare(**prepare_flags.arguments(values))
    except (DataError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("interrupted: no data set was written; start again", file=sys.stderr)
        return 1
    print(report)
    return 0


def parse(argv, values):
    """Parses the flags; ends the process with code 2 if one is wrong."""
    try:
        return values(argv)
    except flags.Error as error:
        sys.exit(_refuse(error))


def _refuse(error):
    """Says in one line what is wrong with the input; gives the exit code for that."""
    print(" ".join(line.strip() for line in str(error).splitlines()), file=sys.stderr)
    return 2


def run():
    """Entry point of the console script."""
    if {"--help", "-h"} & set(sys.argv[1:]):  # absl's own shows only flags defined in __main__
        values = flags.FlagValues()
        prepare_flags.define(values)
        print(f"{__doc__.strip()}\n\nFlags:")
        for name in values:
            print(f"  --{name:<20} {values[name].help} Default: {values[name].default!r}.")
        return
    # Handled as Ctrl-C is: unwinding the stack is what removes the half-written data set.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_flags.define(flags.FLAGS)
    app.run(lambda argv: main(argv, flags.FLAGS), flags_parser=lambda argv: parse(argv, flags.FLAGS))


if __name__ == "__main__":
    run()
