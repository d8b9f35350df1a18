"""Reads folders of images: which files make up an example.

Hidden files are ignored, symbolic links followed. A raw video is a file that holds several images. An image
that cannot be used is skipped with its whole example and a reason.
"""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data import gfile
from data.errors import DataError
from data.formats.image_reader import ImageRef, is_image_name, number_of_frames
from data.formats.raw_video import VideoFormat
from data.preparation.examples import Example, SkippedExample

_NAMES_OF_SPLITS = frozenset("train training test testing val valid validation eval evaluation dev".split())
"""Folders with these names, in any case, are splits and not A and B."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderReader:
    """Reads folders of images.

    Attributes:
      video: how raw video is read.
      match_a: for layout paired with A and B in one folder: regular expression that matches the whole name,
        without extension, of the files of A. Group 1 is the name of the pair.
      match_b: the same for B.
      ignored: paths of files that are not images; filled while reading.
      skipped: examples that cannot be used; filled while reading.

    Raises:
      DataError: one pattern without the other, or a pattern that is not valid or has no group.
    """

    video: VideoFormat = dataclasses.field(default_factory=VideoFormat)
    match_a: str | None = None
    match_b: str | None = None
    ignored: list[str] = dataclasses.field(default_factory=list)
    skipped: list[SkippedExample] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.match_a is None) != (self.match_b is None):
            raise DataError("match_a, match_b: only one of them is given; give both or neither")
        for name in ("match_a", "match_b"):
            if getattr(self, name) is not None:
                compile_pattern(name, getattr(self, name))

    def contents(self, folder: str) -> tuple[list[str], list[str]]:
        """Returns the sorted names of the sub-folders and of the image files of a folder.

        A folder whose name is that of an image counts as an image, so that it is reported as unreadable.
        """
        folders, images = [], []
        try:
            names = [name for name in gfile.list_dir(folder) if not name.startswith(".")]
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror}); check it") from error
        for name in names:
            path = os.path.join(folder, name)
            if is_image_name(path):
                images.append(name)
            elif gfile.is_dir(path):
                folders.append(name)
            else:
                self.ignored.append(path)
        return folders, images

    def examples(self, folder: str) -> list[Example]:
        """Returns the images of a folder without sub-folders as examples of one image, sorted by name."""
        named = self._by_name(folder, self._images(folder))
        return [Example(name, (ref,)) for name, ref in named.items() if ref]

    def tree(self, folder: str) -> list[Example]:
        """Returns all images below a folder as examples of one image, sorted by name: "cat/indoors/0001".

        Raises:
          DataError: the folder, or one directly in it, holds no image that can be used; or all of these
            look like splits.
        """
        named = self._by_name(folder, self._images_below(folder))
        examples = [Example(name, (ref,)) for name, ref in named.items() if ref]
        used = {example.name.partition("/")[0] for example in examples}
        folders, _ = FolderReader().contents(folder)  # this reader has noted which files are ignored
        if folders:
            _check_no_splits(folder, folders)
        unused = [name for name in folders if unicodedata.normalize("NFC", name) not in used]
        if unused or not examples:
            raise DataError(
                f"{os.path.join(folder, *unused[:1])}: holds no image that can be used; add some or remove "
                "the folder"
            )
        return examples

    def pairs(self, folder: str) -> list[Example]:
        """Returns the pairs of a folder, by name: of its two sub-folders, or of the files of two patterns."""
        if self.match_a is None or self.match_b is None:
            return self.pairs_of(*domain_paths(self, folder, layout="paired"))
        skipped_before = len(self.skipped)
        a, b = self._matched(folder, self.match_a, self.match_b)
        return self._paired(a, b, (folder, folder), skipped_before)

    def pairs_of(self, folder_a: str, folder_b: str) -> list[Example]:
        """Returns the pairs of two folders, by name."""
        skipped_before = len(self.skipped)
        a, b = (self._by_name(folder, self._images(folder)) for folder in (folder_a, folder_b))
        return self._paired(a, b, (folder_a, folder_b), skipped_before)

    def _paired(
        self,
        a: Mapping[str, ImageRef | None],
        b: Mapping[str, ImageRef | None],
        paths: tuple[str, str],
        skipped_before: int,
    ) -> list[Example]:
        """Joins the images of A and of B that have the same name.

        Args:
          a: images by name; None for a name that cannot be used.
          b: likewise.
          paths: the folders of A and B, for messages.
          skipped_before: number of examples that were skipped in other folders.
        """
        if not a.keys() & b.keys():
            skipped = [reason for _, reason in self.skipped[skipped_before:]]
            first = f" (skipped: {skipped[0]})" if skipped else ""
            raise DataError(
                f"{paths[0]}: has no pair, as no file of A has the name of one of B in {paths[1]}; give "
                f"both files of a pair the same name{first}"
            )
        pairs = []
        for name in sorted(a.keys() | b.keys()):
            if name not in a or name not in b:
                ref, path = a.get(name) or b.get(name), paths[name in a]
                if ref:
                    reason = f"{ref.path}: has no partner named {name!r} in {path}; add or remove one"
                    self.skipped.append(SkippedExample(name, reason))
            elif (ref_a := a[name]) and (ref_b := b[name]):
                pairs.append(Example(name, (ref_a, ref_b)))
        return pairs

    def _images(self, folder: str) -> list[str]:
        """The names of the images of a folder that must have some, and no sub-folders."""
        folders, images = self.contents(folder)
        if folders:
            raise DataError(
                f"{os.path.join(folder, folders[0])}: a folder among the images of {folder}; move its "
                "images up, or name the folders train, val, test"
            )
        if not images:
            raise DataError(f"{folder}: holds no images; add some or remove the folder")
        return images

    def _images_below(self, folder: str, below: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
        """Yields the paths, relative to a folder, of all images below it.

        Args:
          folder: at the top.
          below: the path, relative to it, of the one to list.
          above: the real paths of the folders from the top to that one.
        """
        path = os.path.join(folder, below) if below else folder
        real = path if gfile.is_url(path) else os.path.realpath(path)
        if real in above:
            raise DataError(f"{path}: links to a folder above it; remove the link")
        folders, images = self.contents(path)
        yield from (os.path.join(below, name) for name in images)
        for name in folders:
            yield from self._images_below(folder, os.path.join(below, name), (*above, real))

    def _matched(self, folder: str, match_a: str, match_b: str) -> list[dict[str, ImageRef | None]]:
        """[{name: ImageRef} of A, of B] of the files in one folder that match the patterns."""
        images = self._images(folder)
        keys: tuple[dict[str, str], dict[str, str]] = ({}, {})
        stems = [_stem(image) for image in images]
        patterns = {
            option: compile_pattern(option, text)
            for option, text in (("match_a", match_a), ("match_b", match_b))
        }
        for option, pattern in patterns.items():
            if not any(map(pattern.fullmatch, stems)):
                raise DataError(
                    f"{option} = {pattern.pattern!r}: matches no file of {folder}, such as {images[0]}; "
                    "change it to match the whole name without its extension"
                )
        for image, stem in zip(images, stems, strict=True):
            matches = [pattern.fullmatch(stem) for pattern in patterns.values()]
            a, b = (match and match[1] for match in matches)
            if (a is None) == (b is None):
                which = "neither match_a nor" if a is None else "both match_a and"
                path = os.path.join(folder, image)
                reason = f"{path}: matches {which} match_b; change one or move the file"
                self.skipped.append(SkippedExample(stem, reason))
            elif a is not None:
                keys[0][image] = a
            elif b is not None:
                keys[1][image] = b
        return [self._by_name(folder, key_of, key_of) for key_of in keys]

    def _by_name(
        self, folder: str, images: Iterable[str], key_of: Mapping[str, str] | None = None
    ) -> dict[str, ImageRef | None]:
        """{name of the example: ImageRef}, sorted; None for a name that several files have.

        Args:
          folder: of the images.
          images: their file names.
          key_of: file name -> name of the example; by default the file name without its extension.
        """
        named: dict[str, ImageRef | None] = {}
        paths_of: dict[str, list[str]] = {}
        for image in images:
            path = os.path.join(folder, image)
            stem = key_of[image] if key_of is not None else _stem(image)
            for name, ref in self._frames(path, image, stem):
                paths_of.setdefault(name, []).append(path)
                named[name] = ref
        for name, paths in paths_of.items():
            if len(paths) > 1:
                named[name] = None
                others = ", ".join(map(os.path.basename, paths[1:]))
                reason = (
                    f"{paths[0]}: and {others} have the same name, {name!r}, and only one can be used; "
                    "rename or remove one"
                )
                self.skipped.append(SkippedExample(name, reason))
        return dict(sorted(named.items()))

    def _frames(self, path: str, image: str, stem: str) -> list[tuple[str, ImageRef]]:
        """(name, ImageRef) of each image in a file; none if the file cannot be used."""
        try:
            stem.encode()
            frames = number_of_frames(path, self.video)
        except UnicodeEncodeError:
            reason = f"{path!r}: the name is not valid UTF-8; rename it"
            self.skipped.append(SkippedExample(ascii(image), reason))
            return []
        except DataError as error:
            self.skipped.append(SkippedExample(stem, str(error)))
            return []
        if frames == 1:
            return [(stem, ImageRef(path))]
        return [(f"{stem}_f{frame:04d}", ImageRef(path, frame)) for frame in range(frames)]


def domain_paths(reader: FolderReader, folder: str, *, layout: str) -> tuple[str, str]:
    """The paths of the two sub-folders, A and B, of a folder that holds nothing else."""
    folders, images = reader.contents(folder)
    found = ", ".join(folders) or "none"
    if images or len(folders) != 2:
        beside = f", and {images[0]} beside them" if images else ""
        raise DataError(
            f"{folder}: layout {layout} needs exactly two sub-folders, such as A and B, with the images; "
            f"found {found}{beside}"
        )
    _check_no_splits(folder, folders)
    a, b = (os.path.join(folder, name) for name in folders)
    return a, b


def _check_no_splits(folder: str, folders: Sequence[str]) -> None:
    if all(name.lower() in _NAMES_OF_SPLITS for name in folders):
        raise DataError(
            f"{folder}: its folders {', '.join(folders)} look like splits, but only train, val and test are "
            "read as such; rename them to these"
        )


def _stem(image: str) -> str:
    """A file name without its extension, in one form: macOS writes accents as characters of their own."""
    return unicodedata.normalize("NFC", os.path.splitext(image)[0])


def compile_pattern(option: str, pattern: str) -> re.Pattern[str]:
    """Compiles a regular expression that needs a group; a `DataError` names the option."""
    try:
        compiled = re.compile(unicodedata.normalize("NFC", pattern))  # as the names are
    except re.error as error:
        raise DataError(f"{option} = {pattern!r}: not a regular expression ({error}); correct it") from error
    if not compiled.groups:
        raise DataError(f"{option} = {pattern!r}: has no group; put (...) around the part to use")
    return compiled
