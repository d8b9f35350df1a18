"""The report of a preparation."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.imaging import Classes
from data.roles import SIDE_MAP, SIDE_VECTOR
from data.tfrecords import prepared_dataset
from data.tfrecords.image_encoding import StoredFormat, format_of
from data.tfrecords.target_format import LABEL

_MOST_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A data set that was prepared or, if it is a public one, found.

    Attributes:
      dataset: name for training.
      data_dir: folder of the data sets, for training.
      directory: of the data set.
      examples: split -> number of examples.
      shards: split -> number of files.
      size_bytes: of all records.
      features: image feature -> format of its images.
      other_features: names of the features that are not images.
      class_feature: name of the feature that is a class; "" if there is none, or one cannot be chosen.
      domain_channels: {"A", "B": channels} if the domains of unpaired images differ in them.
      vector_size: size of each example's side vector; 0 without vectors.
      classes: names of the elements of the vector if it is a one-hot class.
      labels: images whose values are classes -> the pixel value of each class; empty if there are too many.
      measured: features whose value range was measured by decoding all images a second time.
      minorities: lines about images that add alpha, colour or depth to all others of their feature.
      hints: lines about value ranges that nobody may have meant.
      label_hints: lines about images whose few values are probably classes.
      shortest_edge: smallest height or width of all images in pixels; None for a public data set.
      longest_edge: largest height or width of all images in pixels; None for a public data set.
      kept: number of images stored as the bytes of their file.
      re_encoded: number of images stored without loss in another format.
      skipped: why examples were skipped, one line per example.
      duplicates: images that are in two splits, one line per image.
      ignored: files of the source that are not images.
      unlisted: number of examples that are in no list of names.
      groups: number of groups that were kept together; 0 without grouping.
      targets: a line for each class or number of labelled images.
    """

    dataset: str
    data_dir: str
    directory: str
    examples: Mapping[str, int]
    shards: Mapping[str, int]
    size_bytes: int
    features: Mapping[str, StoredFormat]
    other_features: tuple[str, ...] = ()
    class_feature: str = ""
    domain_channels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    vector_size: int = 0
    classes: tuple[str, ...] = ()
    labels: Mapping[str, Classes] = dataclasses.field(default_factory=dict)
    measured: tuple[str, ...] = ()
    minorities: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    label_hints: tuple[str, ...] = ()
    shortest_edge: int | None = None
    longest_edge: int | None = None
    kept: int = 0
    re_encoded: int = 0
    skipped: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unlisted: int = 0
    groups: int = 0
    targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: str, data_dir: gfile.Path, **counts: Any) -> Report:
        """Reads the report of a prepared data set.

        Args:
          dataset: its name.
          data_dir: folder of the data sets.
          **counts: the fields that only the preparation knows, from `measured` on.
        """
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
            class_feature=_class_feature(opened),
            domain_channels=opened.metadata.get("channels", {}),
            vector_size=opened.vector_size(SIDE_VECTOR),
            classes=opened.side_classes,
            labels=opened.labels,
            **counts,
        )

    def __str__(self) -> str:
        lines = [*self._contents(), *self._remarks(), f"train     {self._train_command()}"]
        # File names may hold bytes that no terminal shows.
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()

    def _contents(self) -> list[str]:
        """Lines about the data set as it is stored."""
        examples = ", ".join(
            f"{split} {n} in {_many(self.shards[split], 'file')}" for split, n in self.examples.items()
        )
        lines = [
            f"prepared  {self.dataset} in {self.directory} ({self.size_bytes / 2**20:.1f} MiB)",
            f"examples  {examples}",
        ]
        if self.shortest_edge is not None:
            lines.append(
                f"images    {self.shortest_edge} to {self.longest_edge} pixels high and wide; {self.kept} "
                f"stored unchanged, {self.re_encoded} re-encoded without loss"
            )
        lines += [f"feature   {name}: {self._format_of(name)}" for name in self.features]
        if self.vector_size:
            classes = f"; one-hot: {', '.join(self.classes)}" if self.classes else ""
            lines.append(f"feature   {SIDE_VECTOR}: {_many(self.vector_size, 'number')}{classes}")
        lines += [f"target    {line}" for line in self.targets]
        lines += [f"labels    {name}: {_described(classes)}" for name, classes in self.labels.items()]
        return lines

    def _remarks(self) -> list[str]:
        """Lines about what the user may not expect, such as skipped examples, duplicates, ignored files."""
        lines = [f"{'' if line.startswith(' ') else 'mixed':<10}{line}" for line in self.minorities] + [
            f"hint      {line}" for line in (*self.hints, *self.label_hints)
        ]
        if self.skipped:
            path = os.path.join(self.directory, "metadata.json")
            lines.append(f"skipped   {_many(len(self.skipped), 'example')}; {path} lists all of them:")
            lines += _first_lines(self.skipped)
        if self.duplicates:
            lines.append(f"duplicate {_many(len(self.duplicates), 'image')} in two splits:")
            lines += _first_lines(self.duplicates)
        if self.groups:
            only_train = all(split.startswith("train") for split in self.examples)
            where = "all for training; there is no val or test split" if only_train else "each in one split"
            lines.append(f"grouped   {_many(self.groups, 'group')}, {where}")
        if self.unlisted:
            lines.append(f"unlisted  {_many(self.unlisted, 'example')} in no list; not used")
        if self.ignored:
            names = [os.path.basename(path) for path in self.ignored[:3]]
            more = ", ..." if len(self.ignored) > 3 else ""
            lines.append(
                f"ignored   {_many(len(self.ignored), 'file')} without an image extension: "
                f"{', '.join(names)}{more}"
            )
        return lines

    def _format_of(self, name: str) -> str:
        stored = self.features[name]
        low, high = stored.value_range
        measured = " (measured; all images were decoded twice)" if name in self.measured else ""
        text = f"{stored.dtype}, {_many(stored.channels, 'channel')}, values {low:g} to {high:g}{measured}"
        if self.domain_channels:
            text += "; " + ", ".join(f"{n} in {domain}" for domain, n in self.domain_channels.items())
        return text

    def _train_command(self) -> str:
        """The command that trains on the data set, or its flags if no gin file fits."""
        data_dir = json.dumps(self.data_dir, ensure_ascii=False)  # in quotes, with \\ and quotes escaped
        files, more = self._preset()
        parameters = {"DATASET": f'"{self.dataset}"', "DATA_DIR": data_dir, **more}
        flags = [f"--gin_file=gin/{name}.gin" for name in files]
        flags += [f"--gin_param={name} = {value}" for name, value in parameters.items()]
        if not files:
            return f"with {shlex.join(flags)}"
        return shlex.join(["python", "-m", "engine.train", *flags, f"--workdir=runs/{self.dataset}"])

    def _preset(self) -> tuple[list[str], dict[str, object]]:
        """Names of the gin files that fit, and the parameters they need."""
        images = [name for name in self.features if name != SIDE_MAP]
        if "pair" in self.features or {"A", "B"} <= self.features.keys():
            return ["pix2pix"], self._side_information()
        if len(images) != 1:
            return [], {}
        if {"trainA", "trainB"} <= self.examples.keys():
            # The identity loss needs images with the generator's channels.
            return ["cyclegan"], {"cyclegan.CycleGan.identity_weight": 0} if self.domain_channels else {}
        if "train" not in self.examples:
            return [], {}
        feature = {} if images[0] == "image" else {"feature": f'"{images[0]}"'}
        if self.class_feature or self.targets:
            label = {"label": f'"{self.class_feature}"'} if self.class_feature not in ("", LABEL) else {}
            name = "classification" if self.class_feature else "regression"
            return [name], {f"labelled.LabelledImages.{key}": text for key, text in (feature | label).items()}
        parameters: dict[str, object] = {f"single.SingleImages.{key}": text for key, text in feature.items()}
        return ["pix2pix", "single"], parameters | self._side_information()

    def _side_information(self) -> dict[str, object]:
        """The parameters that give the networks of pix2pix the side information."""
        parameters: dict[str, object] = {}
        if self.vector_size:
            parameters["side_information.SideInformation.vector"] = '"film"'
        if SIDE_MAP in self.features:
            parameters["side_information.SideInformation.map"] = '"concatenate"'
        return parameters


def _described(classes: Classes) -> str:
    """The classes of labels, for one line."""
    if not classes:
        return "never interpolated; no list of classes, as files are JPEG or have too many colours"
    shown = [str(pixel[0] if len(pixel) == 1 else pixel) for pixel in classes[:_MOST_SHOWN]]
    more = ", ..." if len(classes) > _MOST_SHOWN else ""
    count = f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"
    return f"{count}, never interpolated: {', '.join(shown)}{more}"


def _first_lines(lines: Sequence[str]) -> list[str]:
    """The first few of many lines, indented, and the number of the others."""
    shown = [f"          {line}" for line in lines[:_MOST_SHOWN]]
    if len(lines) > _MOST_SHOWN:
        shown.append(f"          and {len(lines) - _MOST_SHOWN} more")
    return shown


def _image_formats(opened: prepared_dataset.PreparedDataset) -> dict[str, StoredFormat]:
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


def _class_feature(opened: prepared_dataset.PreparedDataset) -> str:
    """The feature that is a class: that named "label", or the only one."""
    found = [n for n, stored in opened.features.items() if isinstance(stored, tfds.features.ClassLabel)]
    return LABEL if LABEL in found else found[0] if len(found) == 1 else ""


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
