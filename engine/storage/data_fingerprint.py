"""fingerprint.json of a run: what its data set held, to notice another data set under the same name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.storage.atomic_files import write_text
from engine.storage.file_errors import reraise_read_errors
from engine.storage.run_directory import RunDirectory
from engine.training_data import HasFingerprint, TrainingData

# Keys of a split, with what differs if their values do. A later one is compared if the earlier ones agree or
# are not known: data sets that older code or TFDS has prepared have no digests of names and records.
_DIGESTS = {
    "names": "other names, or the same in another order",
    "records": "other contents under the same names",
    "file_bytes": "files of other sizes",
    "files": "the same examples, divided into other files",
}


def fingerprint_of(data: TrainingData) -> dict[str, Any]:
    """The fingerprint of a data set, in JSON types; the number of training examples if it has none.

    Raises:
      data.errors.DataError: the data set cannot be used.
    """
    if isinstance(data, HasFingerprint):
        return json.loads(json.dumps(data.fingerprint()))
    return {"splits": {"train": {"examples": data.train_examples}}}


def write_fingerprint(run: RunDirectory, data: TrainingData) -> None:
    """Writes fingerprint.json."""
    write_text(run.fingerprint, json.dumps(fingerprint_of(data), indent=1) + "\n")


def changes_of_data(run: RunDirectory, data: TrainingData) -> list[str]:
    """What differs between the data set of a run, as it was when the run last started, and `data`.

    Returns:
      A line for each difference; none if the run has no fingerprint.json: older code has written it.

    Raises:
      ConfigurationError: fingerprint.json cannot be read.
      data.errors.DataError: the data set cannot be used.
    """
    with reraise_read_errors(run.fingerprint):
        if not tf.io.gfile.exists(run.fingerprint):
            return []
        with tf.io.gfile.GFile(run.fingerprint) as file:
            text = file.read()
    now = fingerprint_of(data)
    try:
        return _changes(json.loads(text), now)
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{run.fingerprint}: is not a description of a data set; remove it if the data set has not "
            "changed since the run began"
        ) from error


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    lines = []
    for part in sorted(before.keys() | after.keys()):
        old, new = before.get(part, {}), after.get(part, {})
        for name in sorted(old.keys() | new.keys()):
            if part == "splits":
                lines += _changes_of_split(name, old.get(name), new.get(name))
            elif old.get(name) != new.get(name):
                lines.append(f"{part} {name!r}: {_show(old.get(name))} -> {_show(new.get(name))}")
    return lines


def _changes_of_split(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[str]:
    if old is None or new is None:
        examples = f"{(old or new or {}).get('examples')} examples"
        return [f"{name}: not there -> {examples}" if old is None else f"{name}: {examples} -> not there"]
    if old.get("examples") != new.get("examples"):
        return [f"{name}: {old.get('examples')} -> {new.get('examples')} examples"]
    known = [key for key in _DIGESTS if key in old and key in new]
    if "records" in known:
        known.remove("file_bytes")  # says less
    return [f"{name}: {_DIGESTS[key]}" for key in known if old[key] != new[key]][:1]


def _show(value: object) -> str:
    return "not there" if value is None else str(value)
