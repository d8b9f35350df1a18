"""The manifest of a packed run: its first member, which lists every file with its size and SHA-256.

Only what is listed is ever unpacked, and only under paths that lead into the target on every system.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

NAME = "gantry-pack.json"
"""The first member of an archive."""
LARGEST_BYTES = 32 * 2**20
"""A manifest is read into memory, so it must not be larger."""
MOST_FILES = 100_000
"""A run that logs thousands of sample grids has fewer."""

MAY_SHARE = ("checkpoints/", "best/")
"""Where files may be links to each other: no file of a checkpoint ever changes."""

_FORMAT, _VERSION = "gantry run", 1
_LONGEST_PATH = 1000


class ManifestError(ValueError):
    """A manifest cannot be used; the message says why in a few words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedFile:
    """One file of a packed run.

    Attributes:
      bytes: its size.
      sha256: digest of its contents, in hexadecimal.
      same_as: path of the file whose contents it shares, as the best checkpoint does with the last one; None
        if the archive has a member for it.
    """

    bytes: int
    sha256: str
    same_as: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a packed run holds.

    Attributes:
      part: of the run: "all", "latest" or "best".
      examples: position of the newest checkpoint in it.
      files: path in the target, with slashes -> the file.
    """

    part: str
    examples: int
    files: Mapping[str, PackedFile]

    @property
    def members(self) -> dict[str, PackedFile]:
        """The files that have a member of their own, by path."""
        return {path: file for path, file in self.files.items() if file.same_as is None}

    @property
    def total_bytes(self) -> int:
        """What all files take where none are shared."""
        return sum(file.bytes for file in self.files.values())

    def holds(self, folder: str) -> bool:
        """Whether there is a file in a folder of the target."""
        return any(path.startswith(f"{folder}/") for path in self.files)

    def to_text(self) -> str:
        """The manifest as JSON, with a digest of itself."""
        files = {
            path: {name: value for name, value in dataclasses.asdict(file).items() if value is not None}
            for path, file in self.files.items()
        }
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "part": self.part,
            "examples": self.examples,
            "files": files,
        }
        return _with_digest(content)


def parse(text: bytes) -> Manifest:
    """Reads a manifest that anybody may have written.

    Raises:
      ManifestError: it is damaged, from a newer version, or names a path or link that is refused.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
        intact = _with_digest({key: value for key, value in content.items() if key != "sha256"})
    except (ValueError, AttributeError, RecursionError) as error:
        raise ManifestError("is damaged") from error
    if content.get("format") != _FORMAT:
        raise ManifestError("is not that of a packed run")
    if content.get("version") != _VERSION:
        raise ManifestError(f"has version {content.get('version')!a:.20}, and this is {_VERSION}")
    if intact.encode() != text:
        raise ManifestError("is damaged")
    part, examples, files = (content.get(key) for key in ("part", "examples", "files"))
    if not isinstance(part, str) or not _is_count(examples) or not isinstance(files, dict):
        raise ManifestError("is damaged")
    manifest = Manifest(
        part=part, examples=examples, files={path: _file(path, entry) for path, entry in files.items()}
    )
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """Checks paths and shared files.

    Raises:
      ManifestError: names the first file that is refused.
    """
    files = manifest.files
    if len(files) > MOST_FILES:
        raise ManifestError(f"lists {len(files)} files, more than {MOST_FILES}")
    for path, file in files.items():
        if fault := path_fault(path):
            raise ManifestError(f"{path[:100]!a} {fault}")
        parts = path.split("/")
        if inner := next((p for n in range(1, len(parts)) if (p := "/".join(parts[:n])) in files), None):
            raise ManifestError(f"{inner[:100]!a} is both a file and a folder")
        if file.same_as is not None and not _may_share(path, file, files):
            raise ManifestError(f"{path[:100]!a} is not the same file as {file.same_as[:100]!a}")


def path_fault(path: str) -> str | None:
    """What is wrong with a path in an archive, in a few words; None for one that leads into the target.

    The rules hold on every system, so that an archive is either accepted everywhere or nowhere.
    """
    parts = path.split("/")
    if path.startswith(("/", "\\")) or re.match("[A-Za-z]:", path):
        return "is an absolute path"
    if ".." in re.split(r"[/\\]", path):
        return "leads out of the target"
    if not path.isprintable() or set(path) & {"\\", ":"}:
        return "has characters that are not allowed in paths"
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > 255 for part in parts):
        return "is too long"
    if any(part in ("", ".") or part[-1] in " ." for part in parts):
        return "is not a plain path"
    if parts[0] == NAME:
        return "is the name of the manifest"
    return None


def _may_share(path: str, file: PackedFile, files: Mapping[str, PackedFile]) -> bool:
    original = files.get(file.same_as or "")
    return (
        original is not None
        and original.same_as is None
        and (original.bytes, original.sha256) == (file.bytes, file.sha256)
        and all(each.startswith(MAY_SHARE) for each in (path, file.same_as or ""))
    )


def _file(path: str, entry: Any) -> PackedFile:
    if (
        not isinstance(entry, dict)
        or not {"bytes", "sha256"} <= entry.keys() <= {"bytes", "sha256", "same_as"}
        or not _is_count(entry["bytes"])
        or not isinstance(entry["sha256"], str)
        or not re.fullmatch("[0-9a-f]{64}", entry["sha256"])
        or not isinstance(entry.get("same_as", ""), str)
    ):
        raise ManifestError(f"{path[:100]!a} is not described")
    return PackedFile(**entry)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is repeated")
    return content


def _with_digest(content: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1, sort_keys=True) + "\n"
