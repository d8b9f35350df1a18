"""Translates many pictures: reading ahead and writing behind in threads, with a progress bar."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from data import gfile
from data.preparation.parallel_map import map_in_order
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.pictures.picture_log import PictureLog
from engine.pictures.trained_size import TrainedSize
from engine.reporting.closed_terminal import allow_closed_terminal
from engine.storage.atomic_files import write_bytes
from engine.storage.file_errors import reraise_write_errors
from engine.translation.picture_steps import Job, Translated
from engine.translation.picture_translation import PictureTranslation

_THREADS = (
    4  # that read, and as many that write: more than a machine of few cores has, as disks make them wait
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Written:
    """The outcome for a picture: the first file of each of its outputs."""

    translated: Translated
    paths: Sequence[str] = ()
    notes: Sequence[str] = ()
    error: Exception | None = None


def translate_pictures(
    translation: PictureTranslation,
    jobs: Sequence[Job],
    *,
    output: str,
    log: PictureLog,
    trained: TrainedSize | None,
) -> list[str]:
    """Translates pictures and writes the results.

    Args:
      translation: reads, translates and encodes them.
      jobs: the pictures.
      output: folder of the results, for messages.
      log: gets what is unusual about pictures, and which are refused.
      trained: size of pictures in training, for a note; None makes none.

    Returns:
      The paths of the results, in the order of the pictures.

    Raises:
      ConfigurationError: a result cannot be written. Those that are written stay.
    """
    threads = min(_THREADS, os.cpu_count() or 1)

    def write(translated: Translated) -> _Written:
        if translated.error is not None:
            return _Written(translated=translated, error=translated.error)
        try:
            files, notes = translation.files(translated)
        except (ConfigurationError, NonFiniteOutputError) as error:
            return _Written(translated=translated, error=error)
        paths = []
        for stem, contents in zip(translated.job.stems, files, strict=True):
            for ending, content in contents.items():
                _write(stem + ending, content, output)
            paths.append(stem + next(iter(contents)))
        return _Written(translated=translated, paths=paths, notes=notes)

    loaded = map_in_order(translation.load, jobs, threads=threads)
    written: dict[int, Sequence[str]] = {}
    with _bar(len(jobs)) as bar:
        for one in map_in_order(write, translation.translate(loaded), threads=threads):
            if one.error is not None:
                log.refuse(one.translated.job.position, one.error)
            elif one.translated.loaded is not None:
                height, width = one.translated.loaded.picture.pixels.shape[:2]
                log.add(one.notes, size=trained, height=height, width=width)
                written[one.translated.job.position] = one.paths
            if one.translated.seam is not None:
                log.add_seam(one.translated.job.source.path, one.translated.seam)
            with allow_closed_terminal():
                bar.update()
    return [path for position in sorted(written) for path in written[position]]


def _write(path: str, content: bytes, output: str) -> None:
    with reraise_write_errors(f"--output={output}", remedy="choose another folder"):
        with gfile.new_dir(os.path.dirname(path) or os.curdir):
            write_bytes(path, content)


@contextlib.contextmanager
def _bar(pictures: int) -> Iterator[tqdm]:
    """A progress bar; without a terminal there is none."""
    bar = tqdm(total=pictures, unit="picture", dynamic_ncols=True, disable=None)
    try:
        yield bar
    finally:
        with allow_closed_terminal():
            bar.close()
