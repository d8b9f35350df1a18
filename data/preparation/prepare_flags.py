"""The flags of `data.prepare`, and the arguments they stand for."""

import os

from absl import flags

from data.errors import DataError
from data.formats import image_reader
from data.formats.raw_video import PIXEL_FORMATS, VideoFormat
from data.preparation import tfds_writer
from data.preparation.layouts import LAYOUTS

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
    ("side_vector", None, "CSV file, name,number,number,...: numbers for the networks beside each example."),
    ("side_classes", None, "CSV file, name,class: the class of each example, stored one-hot."),
    ("side_map", None, "Folder of images, found by name: a map for the networks beside each example."),
    ("value_range", None, "LOW,HIGH: values of float32 images, measured if not given; or of uint16 images "
     "that use a part of their range, such as 0,4095."),
    ("video_size", None, "WIDTHxHEIGHT of the frames of .yuv files."),
)  # fmt: skip
_INTEGERS = (
    ("max_pixels", image_reader.MAX_PIXELS, "Images with more are refused before they are decoded."),
    ("readers", 8, "Least number of files of a split, so that as many can read at once. Files aim at "
     f"{tfds_writer.SHARD_BYTES // 2**20} MiB, the shuffle window held in memory, and end at "
     f"{tfds_writer.MOST_SHARD_BYTES // 2**20} MiB, enough for remote storage."),
    ("threads", None, "Images read and encoded at a time; one for each CPU if not given."),
)  # fmt: skip
_VIDEO_ENUMS = (
    ("pixel_format", list(PIXEL_FORMATS), "Planes and bits of .yuv files."),
    ("colours", ["rgb", "ycbcr", "y"], "What frames become: RGB, the planes as they are, or luma as it is."),
    ("matrix", ["bt601", "bt709"], "Matrix of the conversion to RGB."),
    (
        "chroma_location",
        ["left", "center"],
        "Where chroma lies in 4:2:0 .yuv files: MPEG-2 and later, or JPEG.",
    ),
)


_PASSED_ON = (
    "layout name match_a match_b val_fraction test_fraction group split_lists side_vector side_classes "
    "side_map max_pixels readers threads strict overwrite"
).split()


def define(values):
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


def arguments(values):
    """Gives the arguments of `data.prepare.prepare`; raises a `DataError` if a flag is missing or wrong."""
    needed = ("layout", "name") if values.layout == "tfds" else ("layout", "source", "name")
    for name in needed:
        if not values[name].value:
            *others, last = (f"--{other}" for other in needed)
            raise DataError(f"no --{name} given; {', '.join(others)} and {last} are needed")
    return dict(
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


def _numbers(name, text, separator, kind):
    """The two numbers of a flag such as 352x288, or None if it was not given."""
    if text is None:
        return None
    try:
        first, second = map(kind, text.split(separator))
    except ValueError as error:
        raise DataError(f"--{name}={text}: must be two numbers such as 1{separator}2") from error
    return first, second
