"""Statistics of real images that are computed once, and kept beside the data set for all runs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data import gfile
from data.errors import DataError
from engine.input_pipeline.recorded_data import describe, unwrapped
from engine.training_data import HasFingerprint, TrainingData

_WITHOUT_EFFECT = {"data_dir", "supply", "random_crop_epochs"}
"""Settings of a data set that do not change what evaluation reads."""


class KeptStatistics:
    """Arrays about the real images of a split, in the folder `.cache` beside the data sets.

    They are found again only for the same examples, prepared for networks in the same way. Where nothing can
    be written they are computed again each time.

    Args:
      data: the data set; nothing is kept for one without a fingerprint or a folder, or that is no dataclass.
    """

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def load(self, split: str, what: str) -> dict[str, np.ndarray] | None:
        """The arrays that were kept, by name; None if there are none.

        Args:
          split: of the data set.
          what: says what they are, and how they were computed.
        """
        path = self._path(split, what)
        if path is None or not gfile.exists(path):
            return None
        try:
            with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as arrays:
                return dict(arrays)
        except (OSError, tf.errors.OpError, ValueError, zipfile.BadZipFile):  # damaged, or not readable
            return None

    def save(self, split: str, what: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays, if that is possible here.

        Args:
          split: as of `load`.
          what: as of `load`.
          arrays: by name.
        """
        path = self._path(split, what)
        if path is None:
            return
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        temporary = f"{path}.{uuid.uuid4().hex}"  # several evaluations may keep the same at once
        try:
            tf.io.gfile.makedirs(os.path.dirname(path))
            with tf.io.gfile.GFile(temporary, "wb") as file:
                file.write(content.getvalue())
            tf.io.gfile.rename(temporary, path, overwrite=True)
        except (OSError, tf.errors.OpError):  # such as a read-only disk, as data sets on Kaggle
            return

    def _path(self, split: str, what: str) -> str | None:
        source = unwrapped(self._data)
        folder: str = getattr(source, "data_dir", "")
        try:
            splits = getattr(source, "splits", ())
            fingerprint = source.fingerprint() if isinstance(source, HasFingerprint) else None
        except DataError:  # pictures in folders need no data set
            return None
        settings = _settings(source)
        if not folder or split not in splits or None in (fingerprint, settings):
            return None
        description = describe(source)
        identity = {
            "data": json.loads(description.to_json()),
            "contents": fingerprint,
            # The seed chooses a part of the training split, and draws what a task is to undo.
            "settings": settings,
            "split": split,
            "what": what,
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        name = description.dataset.replace("/", "_")
        return os.path.join(os.path.expanduser(folder), ".cache", f"{name}-{split}-{digest}.npz")


def _settings(source: Any) -> dict[str, str] | None:
    """All settings that may matter; None if they are not known."""
    if not dataclasses.is_dataclass(source):
        return None
    return {
        field.name: repr(getattr(source, field.name))
        for field in dataclasses.fields(source)
        if field.name not in _WITHOUT_EFFECT
    }
