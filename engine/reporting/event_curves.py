"""Curves in TensorBoard's event files: what they hold, a part of them, and several files as one curve.

A run that was resumed or rewound leaves a file for each process. Where files overlap, the one that was
started later counts: it drops the points of earlier files after its first step, and those at its first step
that it has too. So each tag has one point at each step, from the process that the run goes back to.
"""

from __future__ import annotations

import array
import dataclasses
import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensorflow.core.util.event_pb2 import Event

from engine.errors import ConfigurationError
from engine.reporting.event_files import read_events

_HPARAMS = "hparams"  # their events have step 0 whenever they were written, and no curve


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Which events to keep.

    Attributes:
      first_step, last_step: both are kept.
      tags: patterns such as "loss/*"; empty for all tags, and for events without a tag.
      excluded_tags: patterns of tags to drop.
      up_to_damage: use a damaged file up to its first damaged event.
    """

    first_step: int = 0
    last_step: float = math.inf
    tags: tuple[str, ...] = ()
    excluded_tags: tuple[str, ...] = ()
    up_to_damage: bool = False

    def has_step(self, step: int) -> bool:
        """Whether a step is kept."""
        return self.first_step <= step <= self.last_step

    def has_tag(self, tag: str) -> bool:
        """Whether a tag is kept."""
        is_wanted = not self.tags or any(fnmatch.fnmatchcase(tag, pattern) for pattern in self.tags)
        return is_wanted and not any(fnmatch.fnmatchcase(tag, pattern) for pattern in self.excluded_tags)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileContents:
    """What an event file holds.

    Attributes:
      path: of the file.
      started: when its first event was written, in seconds since 1970.
      kinds: kind of each tag, such as "scalars" or "images".
      steps: steps of the points of each tag, in the order of the file.
      first_step: of all points of a curve; None if there is none.
    """

    path: str
    started: float
    kinds: dict[str, str]
    steps: dict[str, array.array]
    first_step: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """A file, and what of it counts beside the files that were started later.

    Attributes:
      contents: of the file.
      last_step: the last that counts.
      replaced: (tag, step) of points that later files have too.
    """

    contents: FileContents
    last_step: float = math.inf
    replaced: frozenset[tuple[str, int]] = frozenset()

    def has_point(self, tag: str, step: int) -> bool:
        """Whether the file's point of a tag at a step counts."""
        return step <= self.last_step and (tag, step) not in self.replaced


def read_contents(path: str, *, up_to_damage: bool) -> FileContents:
    """Reads what a file holds.

    Raises:
      ConfigurationError: the file cannot be read, is no event file, or is damaged while
        `up_to_damage` is False.
    """
    kinds: dict[str, str] = {}
    steps: dict[str, array.array] = {}
    started = None
    for event in read_events(path, up_to_damage=up_to_damage):
        if started is None:
            if event.WhichOneof("what") != "file_version":
                break
            started = event.wall_time
        for value in event.summary.value:
            if value.tag not in kinds:
                kinds[value.tag] = _kind(value)
            steps.setdefault(value.tag, array.array("q")).append(event.step)
    if started is None:
        raise ConfigurationError(f"{path}: is no event file, or an empty one; remove it or name another")
    curves = [steps[tag][0] for tag, kind in kinds.items() if kind != _HPARAMS]
    first_step = min(curves) if curves else None
    return FileContents(path=path, started=started, kinds=kinds, steps=steps, first_step=first_step)


def cut_overlaps(files: Sequence[FileContents]) -> list[Cut]:
    """Decides what counts where files overlap.

    Args:
      files: of one curve.

    Returns:
      All of them in the order in which they were started.
    """
    cuts: list[Cut] = []
    last_step, replaced = math.inf, frozenset[tuple[str, int]]()
    for contents in sorted(files, key=lambda each: (each.started, each.path), reverse=True):
        cuts.append(Cut(contents=contents, last_step=last_step, replaced=replaced))
        if contents.first_step is not None:
            last_step = min(last_step, contents.first_step)
        replaced |= {
            (tag, step)
            for tag, steps in contents.steps.items()
            for step in set(steps)
            if step == contents.first_step or contents.kinds[tag] == _HPARAMS
        }
    return cuts[::-1]


def selected_events(cut: Cut, selection: Selection) -> Iterator[Event]:
    """The events of one file that count and are selected. A point's metadata stay with its tag."""
    metadata: dict[str, Any] = {}
    for event in read_events(cut.contents.path, up_to_damage=selection.up_to_damage):
        for value in event.summary.value:  # some writers describe a tag only at its first point
            if value.HasField("metadata"):
                metadata.setdefault(value.tag, value.metadata)
        if event.WhichOneof("what") == "file_version":
            yield event
        elif not selection.has_step(event.step):
            continue
        elif event.HasField("summary"):
            kept = [
                value
                for value in event.summary.value
                if cut.has_point(value.tag, event.step) and selection.has_tag(value.tag)
            ]
            if kept:
                yield _with_values(event, kept, metadata)
        elif event.step <= cut.last_step and not selection.tags:
            yield event


def joined_events(cuts: Sequence[Cut], selection: Selection) -> Iterator[Event]:
    """The selected events of several files as those of one file."""
    has_version = False
    for cut in cuts:
        for event in selected_events(cut, selection):
            is_version = event.WhichOneof("what") == "file_version"
            if not (is_version and has_version):
                yield event
            has_version |= is_version


def _with_values(event: Event, values: Sequence[Any], metadata: Mapping[str, Any]) -> Event:
    changed = Event()
    changed.CopyFrom(event)
    del changed.summary.value[:]
    for value in values:
        added = changed.summary.value.add()
        added.CopyFrom(value)
        if value.tag in metadata and not value.HasField("metadata"):
            added.metadata.CopyFrom(metadata[value.tag])
    return changed


def _kind(value: Any) -> str:
    """TensorBoard's plugin for a value of an event; of old writers, the name of the field."""
    named: str = value.metadata.plugin_data.plugin_name or value.WhichOneof("value") or ""
    return {"simple_value": "scalars", "image": "images", "histo": "histograms"}.get(named, named)
