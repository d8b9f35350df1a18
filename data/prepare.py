"""Prepares a folder of images for training: writes it as a TFDS data set of TFRecord shards.

    python -m data.prepare --layout=side_by_side --source=facades --name=facades

Layouts: side_by_side, where one file holds A (left half) and B (right half); paired, where two
sub-folders hold A and B under the same names. A source has folders train, val, test, or is divided.
"""

import dataclasses
import os
import pathlib
import re
import shlex
import signal
import sys
from collections.abc import Mapping

import tqdm
from absl import app, flags, logging

import data.quiet_tensorflow  # noqa: F401
from data import builders, pictures, records, sources, stored_images, synthetic
from data.errors import DataError
from data.video import VideoFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was prepared.

    Attributes:
        name, data_dir: as given.
        directory: where the data set is.
        examples: split -> number of examples.
        size_bytes: bytes of all records.
        shortest_side, longest_side: of all images, in pixels.
        kept, re_encoded: images stored as they were, and as PNG of the same pixels.
        ignored: files of the source that are no images.
    """

    name: str
    data_dir: str
    directory: str
    examples: Mapping[str, int]
    size_bytes: int
    shortest_side: int
    longest_side: int
    kept: int
    re_encoded: int
    ignored: tuple[str, ...]

    def __str__(self):
        parameters = (f'DATASET = "{self.name}"', f'DATA_DIR = "{self.data_dir}"')
        train = ["python", "-m", "engine.train", "--gin_file=gin/pix2pix.gin"]
        train += [f"--gin_param={parameter}" for parameter in parameters]
        train += [f"--workdir=runs/{self.name}"]
        lines = [
            f"prepared  {self.name} in {self.directory} ({self.size_bytes / 2**20:.1f} MiB)",
            "examples  " + ", ".join(f"{split} {n}" for split, n in self.examples.items()),
            f"images    sides of {self.shortest_side} to {self.longest_side} pixels; {self.kept} "
            f"stored as they are, {self.re_encoded} re-encoded as PNG without loss",
        ]
        if self.ignored:
            more = ", ..." if len(self.ignored) > 3 else ""
            lines.append(
                f"ignored   {len(self.ignored)} files that are no images: "
                + ", ".join(self.ignored[:3])
                + more
            )
        return "\n".join([*lines, "train     " + shlex.join(train)])


def prepare(
    *,
    layout: str,
    source: str | os.PathLike,
    name: str,
    data_dir: str | os.PathLike = "datasets",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    overwrite: bool = False,
) -> Report:
    """Prepares a folder of images for training; all that the binary does.

    Every image is decoded completely once, so that a damaged one is found now and not in training.
    Nothing is left in data_dir unless all went well.

    Args:
        layout: "side_by_side" or "paired".
        source: folder of the images, with folders train, val, test or without.
        name: of the data set: lower-case letters, digits and underscores, a letter first.
        data_dir: folder of the prepared data sets; nothing is written elsewhere.
        val_fraction, test_fraction: parts of the examples for "val" and "test" if the source is not
            divided into folders.
        overwrite: replace a prepared data set of this name.

    Returns:
        A `Report`.

    Raises:
        DataError: the source, one of its files, or an argument cannot be used.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(f"name {name!r}: must be lower-case letters, digits and underscores, a letter first.")
    if name == synthetic.NAME:
        raise DataError(f"name {name!r}: belongs to the built-in data set; choose another.")
    builders.check_free(name=name, data_dir=data_dir, overwrite=overwrite)
    found = sources.find_examples(
        layout=layout, source=source, val_fraction=val_fraction, test_fraction=test_fraction
    )
    survey = _Survey.of(layout, found)
    counts = {"kept": 0, "re_encoded": 0}
    total = sum(map(len, found.splits.values()))
    progress = tqdm.tqdm(total=total, desc=name, unit="ex", leave=False, disable=None)
    with progress as bar:
        directory = builders.write_dataset(
            name=name,
            data_dir=data_dir,
            channels=survey.channels,
            splits={
                split: lambda examples=examples: _encoded(examples, survey.channels, counts, bar)
                for split, examples in found.splits.items()
            },
            metadata={"layout": layout, **survey.smallest},
            record_bytes=survey.record_bytes,
            overwrite=overwrite,
        )
    size_bytes = sum(
        round(part.bytes_per_record * part.examples)
        for part in records.open_dataset(name, data_dir).splits.values()
    )
    return Report(
        name=name,
        data_dir=os.fspath(data_dir),
        directory=directory,
        examples={split: len(examples) for split, examples in found.splits.items()},
        size_bytes=size_bytes,
        shortest_side=min(side["pixels"] for side in survey.smallest.values()),
        longest_side=survey.longest_side,
        kept=counts["kept"],
        re_encoded=counts["re_encoded"],
        ignored=tuple(path.name for path in found.ignored),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Survey:
    """What must be known of all images before the first is written."""

    channels: Mapping[str, int]
    smallest: Mapping[str, Mapping]
    longest_side: int
    record_bytes: float

    @classmethod
    def of(cls, layout, found):
        """Reads the headers of all images and checks that they fit the layout."""
        channels, smallest, longest_side, total_bytes = {}, {}, 0, 0
        examples = [example for split in found.splits.values() for example in split]
        for example in tqdm.tqdm(examples, "looking", unit="ex", leave=False, disable=None):
            headers = {feature: _kind(path) for feature, path in example.files.items()}
            height, width = _image_size(layout, example, headers)
            for side, pixels in (("smallest_height", height), ("smallest_width", width)):
                if side not in smallest or pixels < smallest[side]["pixels"]:
                    smallest[side] = {"pixels": pixels, "name": example.name}
            longest_side = max(longest_side, height, width)
            for feature, header in headers.items():
                channels[feature] = max(channels.get(feature, 1), header.channels)
                total_bytes += example.files[feature].stat().st_size
        return cls(
            channels=channels,
            smallest=smallest,
            longest_side=longest_side,
            record_bytes=total_bytes / len(examples),
        )


def _kind(path):
    """Reads what an image is, and takes only 8 bits without transparency."""
    kind = pictures.read_kind(
        pictures.ImageRef(str(path)), video=VideoFormat(), max_pixels=pictures.MAX_PIXELS
    )
    if kind.alpha:
        raise DataError(f"{path}: has transparent parts; flatten it onto a background.")
    if kind.dtype != "uint8":
        raise DataError(f"{path}: has more than 8 bits a channel; convert it to 8-bit PNG.")
    return kind


def _image_size(layout, example, headers):
    """(height, width) of the images of an example: of either half, or of both files."""
    if layout == "side_by_side":
        header, path = headers["pair"], example.files["pair"]
        if header.width % 2:
            raise DataError(
                f"{path}: is {header.width} pixels wide and cannot be cut into two halves; layout "
                "side_by_side needs an even width."
            )
        return header.height, header.width // 2
    sizes = {feature: (header.height, header.width) for feature, header in headers.items()}
    if sizes["A"] != sizes["B"]:
        (a_height, a_width), (b_height, b_width) = sizes["A"], sizes["B"]
        raise DataError(
            f"{example.files['A']}: is {a_width}x{a_height}, but its partner {example.files['B']} "
            f"is {b_width}x{b_height}; the two of a pair must be of one size."
        )
    return sizes["A"]


def _encoded(examples, channels, counts, bar):
    """Iterates over examples as they are stored, counting what becomes of their images."""
    for example in examples:
        stored = {"name": example.name}
        for feature, path in example.files.items():
            encoded = stored_images.encode(
                pictures.ImageRef(str(path)),
                stored=stored_images.StoredFormat(
                    channels=channels[feature], dtype="uint8", value_range=(0, 255)
                ),
                video=VideoFormat(),
                max_pixels=pictures.MAX_PIXELS,
            )
            stored[feature] = encoded.value
            counts["kept" if encoded.kept else "re_encoded"] += 1
        yield stored
        bar.update()


def define_flags(values):
    """Defines the flags on `values`; not at import, so that a notebook can import any program."""
    flags.DEFINE_enum(
        "layout",
        None,
        list(sources.LAYOUTS),
        "How the source holds the images.",
        flag_values=values,
    )
    for name, default, text in (
        ("source", None, "Folder of the images."),
        ("name", None, "Name of the data set."),
        ("data_dir", "datasets", "Folder of the prepared data sets."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    for split in ("val", "test"):
        flags.DEFINE_float(
            f"{split}_fraction",
            0.1,
            f"Part of the examples for {split!r} if the source has no such folders.",
            flag_values=values,
        )
    flags.DEFINE_bool("overwrite", False, "Replace a prepared data set of this name.", flag_values=values)


def main(argv, values):
    """Runs `prepare` with the flags and prints its report; gives the exit code."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise DataError(f"{argv[1]!r}: unexpected argument; every option is a flag, see --help")
        for name in ("layout", "source", "name"):
            if not values[name].value:
                raise DataError(f"no --{name} given; --layout, --source and --name are needed")
        report = prepare(
            layout=values.layout,
            source=pathlib.Path(values.source).expanduser(),
            name=values.name,
            data_dir=os.path.expanduser(values.data_dir),
            val_fraction=values.val_fraction,
            test_fraction=values.test_fraction,
            overwrite=values.overwrite,
        )
    except (DataError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("interrupted: nothing was written; start again", file=sys.stderr)
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
    print(" ".join(str(error).split()), file=sys.stderr)
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
