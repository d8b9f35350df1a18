"""Prepares a folder of images: finds the examples, checks all headers, encodes, writes and reports."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

from data.errors import DataError
from data.preparation import image_set_builder, splits, tfds_writer
from data.preparation.example_encoder import ExampleEncoder
from data.preparation.examples import SkippedExample, check_strict
from data.preparation.folder_reader import FolderReader
from data.preparation.layouts import LAYOUTS
from data.preparation.report import Report
from data.preparation.side_files import Attached, SideFiles
from data.preparation.splits import Division, Source
from data.preparation.survey import ImageReader, Survey, survey
from data.preparation.target_summary import TargetSummary
from data.preparation.targets import Targets
from data.preparation.value_hints import label_hints, value_hints
from data.roles import SIDE_MAP
from data.tfrecords.target_format import TargetFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderPreparation:
    """The preparation of one folder of images.

    Attributes:
      layout: a key of `data.preparation.layouts.LAYOUTS`.
      source: the folder.
      name: of the data set.
      data_dir: folder of the data sets.
      division: how the source is divided if it has no folders of splits.
      folder_reader: a new one.
      image_reader: how images are read.
      side_files: the files of side information.
      targets: where the targets of layout labelled come from; None for other layouts.
      labels: the images whose values are classes: "A", "B".
      readers: smallest number of shards per split, unless there are fewer examples.
      strict: an example that cannot be used or an image in two splits is an error.
      overwrite: replace a prepared data set of this name.

    Raises:
      DataError: the name, the labels or the number of readers cannot be used.
    """

    layout: str
    source: str
    name: str
    data_dir: str
    division: Division
    folder_reader: FolderReader
    image_reader: ImageReader
    side_files: SideFiles
    targets: Targets | None
    labels: tuple[str, ...]
    readers: int
    strict: bool
    overwrite: bool

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise DataError(
                f"name {self.name!r}: must be lower-case letters, digits and underscores, and begin with a "
                "letter; change it"
            )
        if self.readers < 1:
            raise DataError(f"readers = {self.readers}: must be at least 1; change it")
        if self.labels:
            self._check_labels()

    def run(self) -> Report:
        """Prepares the data set.

        Raises:
          DataError: the source cannot be used, no training example remains, or writing fails.
        """
        tfds_writer.check_free(name=self.name, data_dir=self.data_dir, overwrite=self.overwrite)
        found = splits.find_examples(
            layout=self.layout,
            source=self.source,
            division=self.division,
            reader=self.folder_reader,
            classes=self.targets.classes if self.targets else None,
        )
        attached = self._attached(found)
        surveyed = survey(
            layout=self.layout,
            splits=attached.splits,
            reader=self.image_reader,
            has_maps=self.side_files.maps is not None,
        )
        skipped = [*found.skipped, *attached.skipped, *surveyed.skipped]
        if self.strict:
            check_strict(skipped)
        self._check_trainable(surveyed.splits, skipped)
        encoder = ExampleEncoder(
            layout=self.layout,
            survey=surveyed,
            reader=self.image_reader,
            strict=self.strict,
            labels=(*self.labels, *((SIDE_MAP,) if self.side_files.has_class_maps else ())),
        )
        self._write(attached, surveyed, encoder, skipped)
        return self._report(found, attached, surveyed, encoder, [*skipped, *encoder.skipped])

    def _attached(self, found: Source) -> Attached:
        """The examples with their targets and side information."""
        target = None
        if self.targets is not None:
            holds_out = self.division.val_fraction > 0
            found, target = self.targets.attach(found, source=self.source, holds_out=holds_out)
        attached = self.side_files.attach(found, layout=self.layout, video=self.image_reader.video)
        return dataclasses.replace(attached, target=target)

    def _check_labels(self) -> None:
        layout = LAYOUTS[self.layout]
        has_sides = "pair" in layout.features or "A" in (*layout.features, *layout.domains)
        if not has_sides or not set(self.labels) <= {"A", "B"}:
            remedy = (
                "choose A, B or A,B" if has_sides else f"layout {self.layout} has no A and B; leave it out"
            )
            raise DataError(f"labels = {','.join(self.labels)!r}: not known; {remedy}")

    def _check_trainable(self, of_splits: Any, skipped: list[SkippedExample]) -> None:
        splits.check_trainable(of_splits, layout=self.layout, source=self.source, skipped=skipped)

    def _write(
        self, attached: Attached, surveyed: Survey, encoder: ExampleEncoder, skipped: list[SkippedExample]
    ) -> None:
        images = {feature: stored.feature() for feature, stored in surveyed.formats.items()}
        with encoder.progress:
            tfds_writer.write_dataset(
                name=self.name,
                data_dir=self.data_dir,
                features=images | attached.features,
                splits={split: functools.partial(encoder.examples, split) for split in surveyed.splits},
                metadata=lambda: self._metadata(attached, surveyed, encoder, skipped),
                examples_per_shard={
                    split: image_set_builder.examples_per_shard(
                        examples=len(examples),
                        record_bytes=surveyed.record_bytes[split],
                        readers=self.readers,
                    )
                    for split, examples in surveyed.splits.items()
                },
                overwrite=self.overwrite,
            )

    def _metadata(
        self, attached: Attached, surveyed: Survey, encoder: ExampleEncoder, skipped: list[SkippedExample]
    ) -> dict[str, Any]:
        """The metadata of the data set; first checks what is known only after all images were decoded."""
        skipped = [*skipped, *encoder.skipped]
        self._check_trainable(encoder.stored, skipped)
        if self.strict:
            _check_no_duplicates(encoder.duplicates())
        metadata: dict[str, Any] = {
            "layout": self.layout,
            "alpha": list(surveyed.with_alpha),
            **surveyed.smallest(encoder.stored),
            **attached.metadata,
            **encoder.label_metadata(),
        }
        if attached.target is not None:
            metadata |= self._summary(attached.target, surveyed, encoder).metadata()
        if not self.division.val_fraction:
            metadata["holds_out"] = False
        if surveyed.domain_channels:
            metadata["channels"] = surveyed.domain_channels
        if skipped:
            metadata["refused"] = [example.reason for example in skipped]
        return metadata

    def _summary(self, target: TargetFormat, surveyed: Survey, encoder: ExampleEncoder) -> TargetSummary:
        values = {
            split: [surveyed.splits[split][index].values[target.feature_name] for index in stored]
            for split, stored in encoder.stored.items()
        }
        return TargetSummary(target, values, where=self.source)

    def _report(
        self,
        found: Source,
        attached: Attached,
        surveyed: Survey,
        encoder: ExampleEncoder,
        skipped: list[SkippedExample],
    ) -> Report:
        shortest_edge, longest_edge = surveyed.edges(encoder.stored)
        one_hot = {SIDE_MAP} & encoder.classes.keys()  # whose range no network sees
        with_range = {name: stored for name, stored in surveyed.formats.items() if name not in one_hot}
        return Report.of(
            self.name,
            self.data_dir,
            measured=surveyed.measured,
            minorities=surveyed.minorities,
            hints=tuple(value_hints(with_range, encoder.values, given=surveyed.given)),
            label_hints=tuple(label_hints(surveyed.formats, encoder.values, labels=encoder.classes)),
            shortest_edge=shortest_edge,
            longest_edge=longest_edge,
            kept=encoder.kept,
            re_encoded=encoder.re_encoded,
            skipped=tuple(example.reason for example in skipped),
            duplicates=tuple(encoder.duplicates()),
            ignored=tuple(found.ignored),
            unlisted=len(found.unlisted),
            groups=found.groups,
            targets=self._summary(attached.target, surveyed, encoder).lines() if attached.target else (),
        )


def _check_no_duplicates(duplicates: list[str]) -> None:
    if duplicates:
        more = f", and {len(duplicates) - 1} more are in two splits" if len(duplicates) > 1 else ""
        raise DataError(
            f"{duplicates[0]}{more}: strict allows no image in two splits; remove one of each or use group"
        )
