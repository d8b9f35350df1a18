"""The flags of `data.prepare`."""

from __future__ import annotations

import os
from typing import Any

from absl import flags

from data.errors import DataError
from data.formats import image_reader
from data.preparation import image_set_builder
from data.preparation.layouts import LAYOUTS
from data.preparation.number_pairs import parse_pair
from data.preparation.side_files import MAP_KINDS, MAP_VALUES
from data.preparation.video_flags import define_video_flags, video_format
from data.roles import TARGET_KINDS

_STRINGS = (
    ("source", None, "Folder of the images. With --layout=tfds, a prepared data set outside data_dir."),
    ("name", None, "Name of the data set."),
    ("data_dir", "datasets", "Folder of the prepared data sets. Nothing is written anywhere else."),
    ("match_a", None, "For paired images in one folder: regular expression that matches the names of A, "
     "without extension. Group 1 is the name of the pair, as in '(.*)_real'."),
    ("match_b", None, "The same for B, as in '(.*)_mean'."),
    ("group", None, "Regular expression, such as '(scene[0-9]+)_'. Examples whose names have the same group "
     "1 are put into the same split."),
    ("split_lists", None, "Folder of train.txt, val.txt and test.txt with the name of an example per line."),
    ("side_vector", None, "CSV file of name,number,number,...: a vector for the networks with each example."),
    ("side_classes", None, "CSV file of name,class: the class of each example, stored one-hot."),
    ("side_map", None, "Folder of images with the names of the examples: a map for the networks with each "
     "example."),
    ("targets", None, "With --layout=labelled: CSV file of path,class or path,number,number,... with the "
     "path of each image in the source. Without it, each class has a folder of its own."),
    ("labels", None, "A, B or A,B: images whose colours or numbers stand for classes. They are never "
     "interpolated, and colour augmentations leave them as they are."),
    ("value_range", None, "LOW,HIGH: value range of float32 images, measured by default; or of integers that "
     "use a part of their range, as in 0,4095. Or ranges by feature: 'A:0,18;side_map:0,4'."),
)  # fmt: skip
_INTEGERS = (
    ("max_pixels", image_reader.MAX_PIXELS, "Images with more pixels are skipped before they are decoded."),
    ("readers", 8, "Smallest number of files per split; as many can be read in parallel. The target size of "
     f"a file is {image_set_builder.SHARD_BYTES // 2**20} MiB, that of a shuffle window, and its limit is "
     f"{image_set_builder.MOST_SHARD_BYTES // 2**20} MiB, enough for remote storage."),
    ("threads", None, "Number of images read and encoded in parallel; by default one per CPU."),
)  # fmt: skip

# Flags that are arguments of `prepare` as they are.
_SAME_ARGUMENTS = (
    "layout name match_a match_b val_fraction test_fraction group side_map_kind target_kind max_pixels "
    "readers threads strict overwrite"
).split()
# Paths, in which "~" is the home directory: a shell does not replace it behind "=".
_PATHS = "data_dir split_lists side_vector side_classes side_map targets".split()


def define(values: flags.FlagValues) -> None:
    """Defines the flags on `values`; not at import, so that a notebook can import any program."""
    enum, string, boolean = flags.DEFINE_enum, flags.DEFINE_string, flags.DEFINE_bool
    for name, default, text in _STRINGS:
        string(name, default, text, flag_values=values)
    enum("layout", None, [*LAYOUTS, "tfds"], "Folder layout of the source, see above.", flag_values=values)
    enum(
        "side_map_kind",
        MAP_VALUES,
        list(MAP_KINDS),
        "What the numbers of maps are. Classes are never interpolated, and networks get them one-hot.",
        flag_values=values,
    )
    enum(
        "target_kind",
        None,
        list(TARGET_KINDS),
        "What the column of --targets is, if it holds whole numbers only.",
        flag_values=values,
    )
    for split, more in (
        ("val", " 0 holds nothing out, even if nothing else can be evaluated."),
        ("test", ""),
    ):
        flags.DEFINE_float(
            f"{split}_fraction",
            0.1,
            f"Fraction of the examples for split {split!r} if the source has no folders of splits.{more}",
            flag_values=values,
        )
    for name, number, text in _INTEGERS:
        flags.DEFINE_integer(name, number, text, lower_bound=1, flag_values=values)
    define_video_flags(values)
    boolean(
        "strict",
        False,
        "Stop if an example would be skipped or an image is in two splits.",
        flag_values=values,
    )
    boolean("overwrite", False, "Replace a prepared data set of this name.", flag_values=values)


def arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `data.prepare.prepare`; raises a `DataError` if a flag is missing or wrong."""
    required = ("layout", "name") if values.layout == "tfds" else ("layout", "source", "name")
    for name in required:
        if not values[name].value:
            *others, last = (f"--{other}" for other in required)
            raise DataError(f"--{name}: is missing; give {', '.join(others)} and {last}")
    return {
        **{name: _expanded(values[name].value) for name in _PATHS},
        "source": _expanded(values.source) if values.source else None,
        "video": video_format(values),
        "labels": tuple(values.labels.split(",")) if values.labels else (),
        "value_range": _value_range(values.value_range),
        **{name: values[name].value for name in _SAME_ARGUMENTS},
    }


def _expanded(path: str | None) -> str | None:
    return None if path is None else os.path.expanduser(path)


def _value_range(text: str | None) -> tuple[float, float] | dict[str, tuple[float, float]] | None:
    """The range LOW,HIGH; or, of FEATURE:LOW,HIGH;..., the range of each feature."""
    if text is None or ":" not in text:
        return parse_pair("value_range", text, ",", float)
    ranges = {}
    for part in text.split(";"):
        feature, _, numbers = part.partition(":")
        found = parse_pair("value_range", numbers, ",", float)
        assert found is not None, "there is a text"
        ranges[feature.strip()] = found
    return ranges
