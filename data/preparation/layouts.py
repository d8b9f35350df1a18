"""Folders of pictures: which files make up which example.

A layout reads one folder; `LAYOUTS` names them. Hidden files are passed over, symbolic links
followed. A raw video is a file that holds several pictures, in every layout. What cannot be used is
left out with its whole example and its reason kept; only a folder that is not of the layout at all is
an error.
"""

import dataclasses
import os
import re
import typing
import unicodedata
from collections.abc import Callable

import numpy as np

from data import gfile
from data.errors import DataError
from data.formats.image_reader import ImageRef, is_image_name, number_of_frames
from data.formats.raw_video import VideoFormat


class Example(typing.NamedTuple):
    """What makes up an example.

    Attributes:
      name: unique in its split.
      images: its pictures in the order of its layout's features, and its map if it has one.
      side_vector: float32 [K], if it has one.
    """

    name: str
    images: tuple[ImageRef, ...]
    side_vector: np.ndarray | None = None


class SkippedExample(typing.NamedTuple):
    """An example that is left out, and why: one line that names a file."""

    name: str
    reason: str


def check_strict(refused):
    """Raises a `DataError` if there is a `SkippedExample`."""
    if refused:
        more = f" {len(refused) - 1} more cannot be used." if len(refused) > 1 else ""
        raise DataError(f"{refused[0].reason}{more} Nothing was written, as strict leaves nothing out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderReader:
    """How folders are read, and what is noted on the way.

    Attributes:
      video: how raw video is read.
      match_a, match_b: for layout "paired", to find both sides in one folder: regular expressions for
        all of a file's name without extension, group 1 being the name of the pair.
      ignored: paths of files that are no pictures; filled while reading.
      refused: `SkippedExample`s; filled while reading.

    Raises:
      DataError: one pattern without the other, or one that is none or has no group.
    """

    video: VideoFormat = dataclasses.field(default_factory=VideoFormat)
    match_a: str | None = None
    match_b: str | None = None
    ignored: list[str] = dataclasses.field(default_factory=list)
    refused: list[SkippedExample] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if (self.match_a is None) != (self.match_b is None):
            raise DataError(
                "match_a, match_b: are for layout paired, where one tells A from the rest and one B; give "
                "both or neither"
            )
        for name in ("match_a", "match_b"):
            if getattr(self, name) is not None:
                compile_pattern(name, getattr(self, name))

    def contents(self, folder):
        """Names of the sub-folders and of the picture files of a folder, in order.

        A folder with the name of a picture counts as one, so that it is refused by name.
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

    def examples(self, folder):
        """The pictures of a folder without sub-folders: a list of `Example` of one picture, by name."""
        named = self._named(folder, self._images(folder))
        return [Example(name, (ref,)) for name, ref in named.items() if ref]

    def pairs(self, folder):
        """The pairs of a folder, by name: of its two sub-folders, or of the files of two patterns."""
        refused_before = len(self.refused)
        if self.match_a is None:
            folders = two_folders(self, folder, layout="paired")
            places = [os.path.join(folder, name) for name in folders]
            sides = [self._named(place, self._images(place)) for place in places]
        else:
            places, sides = [folder, folder], self._matched(folder)
        first, second = sides
        if not first.keys() & second.keys():
            left_out = [reason for _, reason in self.refused[refused_before:]]
            raise DataError(
                f"{places[0]}: has no pair, as no file of A has the name of one of B in {places[1]}; give "
                "the two of a pair one name" + "".join(f" Left out: {reason}" for reason in left_out[:1])
            )
        pairs = []
        for name in sorted(first.keys() | second.keys()):
            if name not in first or name not in second:
                ref, place = (first.get(name) or second.get(name)), places[name in first]
                if ref:
                    lacks = f"{ref.path}: has no partner named {name!r} in {place}; add or remove one"
                    self.refused.append(SkippedExample(name, lacks))
            elif first[name] and second[name]:
                pairs.append(Example(name, (first[name], second[name])))
        return pairs

    def _images(self, folder):
        """The names of the pictures of a folder that must have some, and no sub-folders."""
        folders, images = self.contents(folder)
        if folders:
            raise DataError(
                f"{os.path.join(folder, folders[0])}: a folder among the images of {folder}; move its "
                "images up, or name the folders train, val, test"
            )
        if not images:
            raise DataError(f"{folder}: holds no images; add some or remove the folder")
        return images

    def _matched(self, folder):
        """[{name: ImageRef} of A, of B] of the files of one folder that the patterns tell apart."""
        images, keys = self._images(folder), ({}, {})
        stems = [os.path.splitext(image)[0] for image in images]
        patterns = {"match_a": re.compile(self.match_a), "match_b": re.compile(self.match_b)}
        for name, pattern in patterns.items():
            if not any(map(pattern.fullmatch, stems)):
                raise DataError(
                    f"{name} = {pattern.pattern!r}: fits no file of {folder}, such as {images[0]}; change "
                    "it, so that it fits all of a name without its extension"
                )
        for image, stem in zip(images, stems, strict=True):
            matches = (pattern.fullmatch(stem) for pattern in patterns.values())
            found = [match and match[1] for match in matches]
            if (found[0] is None) == (found[1] is None):
                which = "neither match_a nor" if found[0] is None else "both match_a and"
                self.refused.append(
                    SkippedExample(
                        stem, f"{os.path.join(folder, image)}: fits {which} match_b; change one or move it"
                    )
                )
                continue
            side = 0 if found[1] is None else 1
            keys[side][image] = found[side]
        return [self._named(folder, list(of_side), of_side.get) for of_side in keys]

    def _named(self, folder, images, key=lambda image: os.path.splitext(image)[0]):
        """{name: ImageRef}, ordered by name; None for a name that several files have."""
        named, doubled = {}, {}
        for image in images:
            path = os.path.join(folder, image)
            try:
                # One spelling for what looks the same: macOS writes accents as letters of their own.
                stem = unicodedata.normalize("NFC", key(image))
                stem.encode()
                frames = number_of_frames(path, self.video)
            except UnicodeEncodeError:
                reason = f"{path!r}: the name is not valid UTF-8; rename it"
                self.refused.append(SkippedExample(ascii(image), reason))
                continue
            except DataError as error:
                self.refused.append(SkippedExample(stem, str(error)))
                continue
            for frame in range(frames):
                name = stem if frames == 1 else f"{stem}_f{frame:04d}"
                if name in named:
                    doubled.setdefault(name, [named[name].path]).append(path)
                else:
                    named[name] = ImageRef(path, frame)
        for name, paths in doubled.items():
            named[name] = None
            others = ", ".join(map(os.path.basename, paths[1:]))
            reason = (
                f"{paths[0]}: and {others} have one name, {name!r}, so it is not clear which one is "
                "meant; rename or remove one"
            )
            self.refused.append(SkippedExample(name, reason))
        return dict(sorted(named.items()))


def two_folders(reader, folder, *, layout):
    """The names of the two sub-folders, A and B, that are all a folder may hold."""
    folders, images = reader.contents(folder)
    if images or len(folders) != 2:
        found = ", ".join(folders) or "none"
        beside = f", and {images[0]} beside them" if images else ""
        raise DataError(
            f"{folder}: layout {layout} needs exactly two sub-folders, such as A and B, with the images; "
            f"found {found}{beside}"
        )
    return folders


def compile_pattern(option, pattern):
    """Compiles a regular expression that must have a group; a `DataError` names the option."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"{option} = {pattern!r}: not a regular expression ({error}); mend it") from error
    if not compiled.groups:
        raise DataError(f"{option} = {pattern!r}: needs a group, (...), around what is to be taken")
    return compiled


def _unpaired(reader, folder):
    folders = two_folders(reader, folder, layout="unpaired")
    places = (os.path.join(folder, name) for name in folders)
    return {side: reader.examples(place) for side, place in zip("AB", places, strict=True)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which folders hold examples.

    Attributes:
      features: of an example, in the order of its pictures.
      sides: what the name of a split ends in: A and B of unpaired images are splits of their own.
      read: function of (`FolderReader`, folder) -> {side: list of `Example`, by name}.
    """

    features: tuple[str, ...]
    sides: tuple[str, ...] = ("",)
    read: Callable[[FolderReader, str], dict[str, list[Example]]]


LAYOUTS = {
    "side_by_side": Layout(features=("pair",), read=lambda reader, folder: {"": reader.examples(folder)}),
    "paired": Layout(features=("A", "B"), read=lambda reader, folder: {"": reader.pairs(folder)}),
    "unpaired": Layout(features=("image",), sides=("A", "B"), read=_unpaired),
    "single": Layout(features=("image",), read=lambda reader, folder: {"": reader.examples(folder)}),
}
"""side_by_side: a file is a pair, A its left half and B its right. paired: files of one name in two
sub-folders, A and B in the order of their names, or of two patterns in one. unpaired: two sub-folders that
do not correspond. single: pictures on their own."""
