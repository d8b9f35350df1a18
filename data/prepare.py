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
from data import builders, pictures, public_sets, splits, synthetic
from data.errors import DataError
from data.layouts import LAYOUTS, FolderReader, check_strict
from data.report import Report, first_lines
from data.storing import Storing
from data.survey import ImageReader, survey
from data.video import VideoFormat


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
    value_range: tuple[float, float] | None = None,
    max_pixels: int = pictures.MAX_PIXELS,
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
        layout: a key of `data.layouts.LAYOUTS`, or "tfds", which takes name, data_dir and source only
            (`data.public_sets.prepare_public`).
        source: folder of the images, with folders train, val, test or without.
        name: of the data set: lower-case letters, digits and underscores, a letter first.
        data_dir: folder of the prepared data sets; nothing is written elsewhere.
        match_a, match_b: as of `data.layouts.FolderReader`.
        val_fraction, test_fraction, group, split_lists: as of `data.splits.Division`.
        video: how raw video is read.
        value_range, max_pixels: as of `data.survey.ImageReader`.
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
        video=video, max_pixels=max_pixels, value_range=value_range, threads=threads or os.cpu_count() or 1
    )
    folders = FolderReader(video=video, match_a=match_a, match_b=match_b)
    if layout == "tfds":
        changed = (division, reader.value_range, video, match_a, strict, overwrite)
        if changed != (splits.Division(), None, VideoFormat(), None, False, False):
            raise DataError(
                "layout tfds: takes name, data_dir and source only; leave out what is for images."
            )
        return public_sets.prepare_public(name=name, data_dir=data_dir, source=source)
    if source is None:
        raise DataError(f"source: layout {layout} needs the folder of the images; give it.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(f"name {name!r}: must be lower-case letters, digits and underscores, a letter first.")
    if name == synthetic.NAME:
        raise DataError(f"name {name!r}: belongs to the built-in data set; choose another.")
    if readers < 1:
        raise DataError(f"readers = {readers}: must be at least 1.")
    builders.check_free(name=name, data_dir=data_dir, overwrite=overwrite)
    source = os.fspath(source)
    found = splits.find_examples(layout=layout, source=source, division=division, reader=folders)
    surveyed = survey(layout=layout, splits=found.splits, reader=reader)
    refused = [*found.refused, *surveyed.refused]
    if strict:
        check_strict(refused)
    splits.check_trainable(surveyed.splits, layout=layout, source=source, refused=refused)
    storing = Storing(layout=layout, survey=surveyed, reader=reader, strict=strict)

    def metadata():
        everything_refused = [refusal for refusal in [*refused, *storing.refused]]
        splits.check_trainable(storing.stored, layout=layout, source=source, refused=everything_refused)
        if strict:
            _check_no_duplicates(storing.duplicates())
        return {
            "layout": layout,
            **surveyed.smallest(storing.stored),
            **({"channels": surveyed.side_channels} if surveyed.side_channels else {}),
            **({"refused": [refusal.reason for refusal in everything_refused]} if everything_refused else {}),
        }

    with storing.progress:
        builders.write_dataset(
            name=name,
            data_dir=data_dir,
            features={feature: stored.feature() for feature, stored in surveyed.formats.items()},
            splits={split: functools.partial(storing.examples, split) for split in surveyed.splits},
            metadata=metadata,
            examples_per_shard={
                split: builders.examples_per_shard(
                    examples=len(examples), record_bytes=surveyed.record_bytes[split], readers=readers
                )
                for split, examples in surveyed.splits.items()
            },
            overwrite=overwrite,
        )
    shortest_side, longest_side = surveyed.sides(storing.stored)
    return Report.of(
        name,
        data_dir,
        measured=surveyed.measured,
        shortest_side=shortest_side,
        longest_side=longest_side,
        kept=storing.kept,
        re_encoded=storing.re_encoded,
        refused=tuple(refusal.reason for refusal in [*refused, *storing.refused]),
        duplicates=tuple(storing.duplicates()),
        ignored=tuple(found.ignored),
        unlisted=found.unlisted,
    )


def _check_no_duplicates(duplicates):
    if duplicates:
        more = f", and {len(duplicates) - 1} more are doubled" if len(duplicates) > 1 else ""
        raise DataError(
            f"{duplicates[0]}{more}: strict allows no image in two splits; remove one of each or use group."
        )


def define_flags(values):
    """Defines the flags on `values`; not at import, so that a notebook can import any program."""
    enum, string, boolean = flags.DEFINE_enum, flags.DEFINE_string, flags.DEFINE_bool
    for name, default, text in _STRINGS:
        string(name, default, text, flag_values=values)
    enum("layout", None, [*LAYOUTS, "tfds"], "How the source holds the images.", flag_values=values)
    for split in ("val", "test"):
        flags.DEFINE_float(
            f"{split}_fraction",
            0.1,
            f"Part of the examples for {split!r} if the source has no such folders.",
            flag_values=values,
        )
    for name, default, text in _INTEGERS:
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
    for name, choices, text in _VIDEO_ENUMS:
        enum(f"video_{name}", getattr(VideoFormat(), name), choices, text, flag_values=values)
    boolean("video_full_range", False, "Values cover the whole range of the bits.", flag_values=values)
    boolean(
        "strict", False, "Refuse the source if anything would be left out or doubled.", flag_values=values
    )
    boolean("overwrite", False, "Replace a prepared data set of this name.", flag_values=values)


_STRINGS = (
    ("source", None, "Folder of the images (with --layout=tfds: of a prepared data set, if not data_dir)."),
    ("name", None, "Name of the data set."),
    ("data_dir", "datasets", "Folder of the prepared data sets; nothing is written elsewhere."),
    ("match_a", None, "Of paired files in one folder: regular expression for the names of A, without "
     "extension, group 1 being the pair, such as '(.*)_real'."),
    ("match_b", None, "The same for B, such as '(.*)_mean'."),
    ("group", None, "Regular expression, such as '(scene[0-9]+)_': examples whose names agree in group 1 "
     "come into one split."),
    ("split_lists", None, "Folder of train.txt, val.txt, test.txt with names of examples, one a line."),
    ("value_range", None, "LOW,HIGH: values of float32 images; measured if not given."),
    ("video_size", None, "WIDTHxHEIGHT of the frames of .yuv files."),
)  # fmt: skip
_INTEGERS = (
    ("max_pixels", pictures.MAX_PIXELS, "Images with more are refused before they are decoded."),
    ("readers", 8, "Least number of files of a split, so that as many can read at once. Files aim at "
     f"{builders.SHARD_BYTES // 2**20} MiB, the shuffle window held in memory, and end at "
     f"{builders.MOST_SHARD_BYTES // 2**20} MiB, enough for remote storage."),
    ("threads", None, "Images read and encoded at a time; one for each CPU if not given."),
)  # fmt: skip
_VIDEO_ENUMS = (
    ("pixel_format", ["yuv420p", "yuv444p", "yuv420p10", "yuv444p10"], "Layout of .yuv files."),
    ("colours", ["rgb", "ycbcr", "y"], "What frames become: RGB, the planes as they are, or luma as it is."),
    ("matrix", ["bt601", "bt709"], "Matrix of the conversion to RGB."),
)


def main(argv, values):
    """Runs `prepare` with the flags and prints its report; gives the exit code."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise DataError(f"{argv[1]!r}: unexpected argument; every option is a flag, see --help")
        needed = ("layout", "name") if values.layout == "tfds" else ("layout", "source", "name")
        for name in needed:
            if not values[name].value:
                *others, last = (f"--{other}" for other in needed)
                raise DataError(f"no --{name} given; {', '.join(others)} and {last} are needed")
        report = prepare(
            source=os.path.expanduser(values.source) if values.source else None,
            data_dir=os.path.expanduser(values.data_dir),
            video=VideoFormat(
                size=_numbers("video_size", values.video_size, "x", int),
                full_range=values.video_full_range,
                **{name: values[f"video_{name}"].value for name, _, _ in _VIDEO_ENUMS},
            ),
            value_range=_numbers("value_range", values.value_range, ",", float),
            **{name: values[name].value for name in _PASSED_ON},
        )
    except (DataError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("interrupted: no data set was written; start again", file=sys.stderr)
        return 1
    for what, lines in (("left out", report.refused), ("doubled", report.duplicates)):
        if lines:
            print("\n".join([f"{what}:", *first_lines(lines)]), file=sys.stderr)
    print(report)
    return 0


_PASSED_ON = (
    "layout name match_a match_b val_fraction test_fraction group split_lists max_pixels readers threads "
    "strict overwrite"
).split()


def _numbers(name, text, separator, kind):
    """The two numbers of a flag such as 352x288, or None if it was not given."""
    if text is None:
        return None
    try:
        first, second = map(kind, text.split(separator))
    except ValueError as error:
        raise DataError(f"--{name}={text}: must be two numbers such as 1{separator}2") from error
    return first, second


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
        define_flags(values)
        print(f"{__doc__.strip()}\n\nFlags:")
        for name in values:
            print(f"  --{name:<20} {values[name].help} Default: {values[name].default!r}.")
        return
    # Handled as Ctrl-C is: unwinding the stack is what removes the half-written data set.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    define_flags(flags.FLAGS)
    app.run(lambda argv: main(argv, flags.FLAGS), flags_parser=lambda argv: parse(argv, flags.FLAGS))


if __name__ == "__main__":
    run()
