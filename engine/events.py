"""Lists, filters, trims, merges and rewrites TensorBoard event files.

  python -m engine.events --input=runs/mine
  python -m engine.events --input=runs/mine --tag='loss/*' --last_step=4000 --output=trimmed
  python -m engine.events --input=runs/first --input=runs/second --output=one_curve
  python -m engine.events --input=runs/mine --in_place

Without --output and --in_place, only lists. An input is a run directory, a folder of event files, or an event
file. Where files overlap, as after a resume from an earlier checkpoint, those that were started later count
from their first step on.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf
from absl import flags
from tensorflow.core.util.event_pb2 import Event

from data import gfile
from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.reporting.event_curves import (
    Cut,
    Selection,
    cut_overlaps,
    joined_events,
    read_contents,
    selected_events,
)
from engine.reporting.event_files import list_event_files, write_events
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors
from engine.storage.run_directory import RunDirectory

_OVERLAPS = ("later", "all")


def files_of(source: str) -> list[str]:
    """The event files of an input.

    Args:
      source: a run directory, a folder of event files, or an event file.

    Raises:
      ConfigurationError: there are none.
    """
    with reraise_read_errors(f"--input={source}"):
        folders = [source, os.path.join(source, "tensorboard")]
        found = [list_event_files(folder) for folder in folders if gfile.is_dir(folder)]
        if not found and gfile.exists(source):
            return [source]
    if not any(found):
        raise ConfigurationError(
            f"--input={source}: holds no event files; name a run directory, a folder of event files, or an "
            "event file"
        )
    return next(filter(None, found))


def read_cuts(paths: Sequence[str], *, overlap: str, up_to_damage: bool) -> list[Cut]:
    """Reads what files hold, and decides what of them counts.

    Args:
      paths: of the files of one curve.
      overlap: "later" or "all".
      up_to_damage: use damaged files up to the damage.

    Raises:
      ConfigurationError: a file cannot be read, or is damaged.
    """
    contents = [read_contents(path, up_to_damage=up_to_damage) for path in paths]
    return cut_overlaps(contents) if overlap == "later" else [Cut(contents=each) for each in contents]


def listing(cuts: Sequence[Cut], selection: Selection) -> str:
    """A table of files and one of tags. Points that a later file repeats are counted by themselves."""
    files: list[tuple[str, ...]] = [("file", "started", "first step", "last step", "points", "repeated")]
    tags: dict[str, list[tuple[int, bool]]] = {}
    for cut in cuts:
        contents = cut.contents
        points = [
            (tag, step, cut.has_point(tag, step))
            for tag, steps in contents.steps.items()
            if selection.has_tag(tag)
            for step in steps
            if selection.has_step(step)
        ]
        for tag, step, counts in points:
            tags.setdefault(tag, []).append((step, counts))
        started = f"{datetime.datetime.fromtimestamp(contents.started):%Y-%m-%d %H:%M:%S}"
        files.append(
            (os.path.basename(contents.path), started, *_figures([(s, counts) for _, s, counts in points]))
        )
    kinds = {tag: kind for cut in cuts for tag, kind in cut.contents.kinds.items()}
    rows: list[tuple[str, ...]] = [("tag", "kind", "first step", "last step", "points", "repeated")]
    rows += [(tag, kinds[tag], *_figures(points)) for tag, points in sorted(tags.items())]
    return f"{_table(files)}\n\n{_table(rows)}"


def write_joined(
    cuts: Sequence[Cut], selection: Selection, *, output: str, shift_steps: int = 0
) -> tuple[str, int]:
    """Writes the selected events of several files as one event file.

    Args:
      cuts: of the files.
      selection: what to keep.
      output: folder of the new file; it may be missing, or hold no event files.
      shift_steps: is added to each step.

    Returns:
      Path of the file, and its points.

    Raises:
      ConfigurationError: the folder holds event files or cannot be written; or nothing is selected.
    """
    with reraise_write_errors(f"--output={output}", remedy="choose another folder"):
        tf.io.gfile.makedirs(output)
        there = list_event_files(output)
    if there:
        raise ConfigurationError(
            f"--output={output}: holds event files already ({os.path.basename(there[0])}); choose another "
            "folder, or change the inputs with --in_place"
        )
    name = f"events.out.tfevents.{min(int(cut.contents.started) for cut in cuts)}.joined"
    counted = _Counted()
    path = os.path.join(output, name)
    write_events(path, counted.count(_shifted(joined_events(cuts, selection), shift_steps)))
    if not counted.points:
        tf.io.gfile.remove(path)
        raise ConfigurationError(
            "nothing is left: no event has such a tag and step; list the inputs without --output to see "
            "what there is"
        )
    return path, counted.points


def rewrite(cuts: Sequence[Cut], selection: Selection, *, shift_steps: int = 0) -> list[tuple[str, int, int]]:
    """Replaces each file by what is selected of it, one after the other.

    Args:
      cuts: of the files.
      selection: what to keep.
      shift_steps: is added to each step.

    Returns:
      Path, points before and points after, of each file.

    Raises:
      ConfigurationError: a file cannot be written; it is then unchanged.
    """
    done = []
    for cut in cuts:
        counted = _Counted()
        write_events(cut.contents.path, counted.count(_shifted(selected_events(cut, selection), shift_steps)))
        before = sum(map(len, cut.contents.steps.values()))
        done.append((cut.contents.path, before, counted.points))
    return done


class _Counted:
    """Counts the points of events that pass by."""

    def __init__(self) -> None:
        self.points = 0

    def count(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            self.points += len(event.summary.value)
            yield event


def _shifted(events: Iterable[Event], steps: int) -> Iterator[Event]:
    for event in events:
        if steps and event.WhichOneof("what") != "file_version":
            event.step += steps
        yield event


def _figures(points: Sequence[tuple[int, bool]]) -> tuple[str, ...]:
    """First step, last step, number, and number of those that do not count."""
    if not points:
        return ("-", "-", "0", "0")
    steps = [step for step, _ in points]
    repeated = sum(not counts for _, counts in points)
    return (str(min(steps)), str(max(steps)), str(len(steps)), str(repeated))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns: two of text, then numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


@contextlib.contextmanager
def _no_training(source: str) -> Iterator[None]:
    """Refuses to change the files of a run that is training: it would go on writing to the old ones."""
    with contextlib.ExitStack() as stack:
        for path in (source, os.path.dirname(os.path.abspath(source))):
            run = RunDirectory(path)
            if gfile.exists(run.config):
                stack.enter_context(run.hold_lock())
        yield


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    flags.DEFINE_multi_string(
        "input", [], "Run directory, folder or event file; may be repeated.", flag_values=values
    )
    flags.DEFINE_string(
        "output", None, "Folder to write one event file to, merged from all inputs.", flag_values=values
    )
    flags.DEFINE_bool(
        "in_place", False, "Rewrite each file of the inputs; the old ones are lost.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "tag", [], "Keep only tags of this pattern, such as 'loss/*'; may be repeated.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "exclude_tag", [], "Drop tags of this pattern; may be repeated.", flag_values=values
    )
    flags.DEFINE_integer("first_step", 0, "Drop events before this step.", flag_values=values)
    flags.DEFINE_integer("last_step", None, "Drop events after this step.", flag_values=values)
    flags.DEFINE_integer(
        "shift_steps", 0, "Add this to each step, for a run that began to count at 0.", flag_values=values
    )
    flags.DEFINE_enum(
        "overlap",
        "later",
        _OVERLAPS,
        "'later': a file drops the points of files that were started before it, from its first step on. "
        "'all': keep every point.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "up_to_damage", False, "Use the events of a damaged file before the damage.", flag_values=values
    )


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    if not values.input:
        raise ConfigurationError("no --input given, such as --input=runs/mine")
    if values.output is not None and values.in_place:
        raise ConfigurationError(f"--output={values.output} --in_place: exclude each other; give one of them")
    selection = Selection(
        first_step=values.first_step,
        last_step=math.inf if values.last_step is None else values.last_step,
        tags=tuple(values.tag),
        excluded_tags=tuple(values.exclude_tag),
        up_to_damage=values.up_to_damage,
    )
    if selection.first_step > selection.last_step:
        raise ConfigurationError(
            f"--first_step={selection.first_step} --last_step={selection.last_step}: no step is between "
            "them; raise --last_step"
        )
    sources = [os.path.expanduser(source) for source in values.input]
    groups = [files_of(source) for source in sources]
    if not values.in_place:  # all inputs are one curve
        paths = list(dict.fromkeys(path for group in groups for path in group))
        cuts = read_cuts(paths, overlap=values.overlap, up_to_damage=values.up_to_damage)
        if values.output is None:
            print(listing(cuts, selection))
            return
        output = os.path.expanduser(values.output)
        path, points = write_joined(cuts, selection, output=output, shift_steps=values.shift_steps)
        print(f"wrote {path}: {points} points of {len(cuts)} file{'' if len(cuts) == 1 else 's'}")
        return
    for source, group in zip(sources, groups, strict=True):
        with _no_training(source):
            cuts = read_cuts(group, overlap=values.overlap, up_to_damage=values.up_to_damage)
            for path, before, after in rewrite(cuts, selection, shift_steps=values.shift_steps):
                print(f"rewrote {path}: {after} of {before} points")


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
