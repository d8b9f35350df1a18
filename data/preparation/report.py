"""What preparing a data set tells its user."""

import dataclasses
import os
import shlex
from collections.abc import Mapping

import tensorflow_datasets as tfds

from data.errors import DataError
from data.roles import SIDE_MAP, SIDE_VECTOR
from data.tfrecords import prepared_dataset
from data.tfrecords.image_encoding import StoredFormat, format_of

_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was prepared, or, of a public data set, what is there.

    Attributes:
      dataset, data_dir: what to call it when training.
      directory: where it is.
      examples, shards: split -> number of examples, of files.
      size_bytes: bytes of all records.
      features: image feature -> how its images are stored.
      other_features: names of the features that are no images.
      domain_channels: {"A", "B": channels} where the sides of unpaired images differ.
      vector_size: numbers of each example's side vector; 0 if there are none.
      classes: names of the classes it stands for, if it does.
      measured: features whose value range was measured, by decoding all images once more.
      shortest_edge, longest_edge: of all images, in pixels; None of a public data set.
      kept, re_encoded: images stored as they were, and without loss in another format.
      refused: why examples were left out, a line each.
      duplicates: pictures that stand in two splits, a line each.
      ignored: files of the source that are no images.
      unlisted: examples that no list of names holds.
      groups: how many groups kept together were divided; 0 if none were asked for.
    """

    dataset: str
    data_dir: str
    directory: str
    examples: Mapping[str, int]
    shards: Mapping[str, int]
    size_bytes: int
    features: Mapping[str, StoredFormat]
    other_features: tuple[str, ...] = ()
    domain_channels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    vector_size: int = 0
    classes: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    shortest_edge: int | None = None
    longest_edge: int | None = None
    kept: int = 0
    re_encoded: int = 0
    refused: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unlisted: int = 0
    groups: int = 0

    @classmethod
    def of(cls, dataset, data_dir, **found):
        """The report of a prepared data set, with what only its preparation could find out."""
        opened = prepared_dataset.open_dataset(dataset, data_dir)
        images = _image_formats(opened)
        return cls(
            dataset=dataset,
            data_dir=os.fspath(data_dir),
            directory=opened.directory,
            examples={split: part.examples for split, part in opened.splits.items()},
            shards={split: len(part.shards) for split, part in opened.splits.items()},
            size_bytes=sum(round(part.bytes_per_record * part.examples) for part in opened.splits.values()),
            features=images,
            other_features=tuple(name for name in opened.features if name not in images),
            domain_channels=opened.metadata.get("channels", {}),
            vector_size=opened.side_vector_size,
            classes=opened.side_classes,
            **found,
        )

    def __str__(self):
        examples = ", ".join(
            f"{split} {n} in {_many(self.shards[split], 'file')}" for split, n in self.examples.items()
        )
        lines = [
            f"prepared  {self.dataset} in {self.directory} ({self.size_bytes / 2**20:.1f} MiB)",
            f"examples  {examples}",
        ]
        if self.shortest_edge is not None:
            lines.append(
                f"images    sides of {self.shortest_edge} to {self.longest_edge} pixels; {self.kept} stored "
                f"as they are, {self.re_encoded} re-encoded without loss"
            )
        lines += [f"feature   {name}: {self._described(name)}" for name in self.features]
        if self.vector_size:
            said = f"; one-hot: {', '.join(self.classes)}" if self.classes else ""
            lines.append(f"feature   {SIDE_VECTOR}: {_many(self.vector_size, 'number')}{said}")
        if self.refused:
            where = os.path.join(self.directory, "metadata.json")
            lines.append(f"left out  {_many(len(self.refused), 'example')}, all named in {where}:")
            lines += first_lines(self.refused)
        if self.duplicates:
            lines.append(f"doubled   {_many(len(self.duplicates), 'image')} in two splits:")
            lines += first_lines(self.duplicates)
        if self.groups:
            lines.append(f"grouped   {self._grouped()}")
        if self.unlisted:
            lines.append(f"unlisted  {_many(self.unlisted, 'example')} in no list, not taken")
        if self.ignored:
            names = [os.path.basename(path) for path in self.ignored[:3]]
            more = ", ..." if len(self.ignored) > 3 else ""
            lines.append(
                f"ignored   {_many(len(self.ignored), 'file')} without the name of an image: "
                f"{', '.join(names)}{more}"
            )
        lines.append(self._next_step())
        # Names of files may hold bytes that no terminal shows.
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()

    def _described(self, name):
        stored = self.features[name]
        values = "values {:g} to {:g}".format(*stored.value_range)
        measured = " (measured: all images were decoded once more for it)" if name in self.measured else ""
        said = f"{stored.dtype}, {_many(stored.channels, 'channel')}, {values}{measured}"
        if self.domain_channels:
            said += "; " + ", ".join(f"{n} in {side}" for side, n in self.domain_channels.items())
        return said

    def _grouped(self):
        said = "all examples are of one group" if self.groups == 1 else f"{self.groups} groups"
        if all(split.startswith("train") for split in self.examples):
            return f"{said}, all for training; there is no val and no test split"
        return f"{said}, each in one split"

    def _next_step(self):
        parameters = {"DATASET": f'"{self.dataset}"', "DATA_DIR": f'"{self.data_dir}"'}
        pictures = [name for name in self.features if name != SIDE_MAP]
        one_feature = len(pictures) == 1
        if "pair" in self.features or {"A", "B"} <= self.features.keys():
            files = ["pix2pix"]
        elif one_feature and {"trainA", "trainB"} <= self.examples.keys():
            files = ["cyclegan"]
            if self.domain_channels:  # no generator can keep pictures of other channels as they are
                parameters["cyclegan.CycleGan.identity_weight"] = 0
        elif one_feature and "train" in self.examples:
            files = ["pix2pix", "single"]
            [feature] = pictures
            if feature != "image":
                parameters["single.SingleImages.feature"] = f'"{feature}"'
        else:
            files = []
        if "pix2pix" in files:
            settings = {
                "vector": ("film", self.vector_size),
                "map": ("concatenate", SIDE_MAP in self.features),
            }
            for setting, (value, is_there) in settings.items():
                if is_there:
                    parameters[f"side_information.SideInformation.{setting}"] = f'"{value}"'
        flags = [f"--gin_file=gin/{name}.gin" for name in files]
        flags += [f"--gin_param={name} = {value}" for name, value in parameters.items()]
        if not files:
            return f"train     with {shlex.join(flags)}"
        train = ["python", "-m", "engine.train", *flags, f"--workdir=runs/{self.dataset}"]
        return "train     " + shlex.join(train)


def first_lines(lines):
    """The first few of many lines, indented, and how many more there are."""
    shown = [f"          {line}" for line in lines[:_MOST_NAMED]]
    if len(lines) > _MOST_NAMED:
        shown.append(f"          and {len(lines) - _MOST_NAMED} more")
    return shown


def _image_formats(opened):
    """{feature: `StoredFormat`} of the features of a data set that are images."""
    formats = {}
    for name, feature in sorted(opened.features.items()):
        if not isinstance(feature, tfds.features.Image | tfds.features.Tensor):
            continue
        try:
            formats[name] = format_of(feature)
        except DataError as error:
            if isinstance(feature, tfds.features.Image):
                raise DataError(f"{opened.directory}: feature {name!r}: {error}") from error
    return formats


def _many(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
