"""The manifest of a checkpoint, by which an intact checkpoint is told from a damaged or partial one.

`manifest.json` is written last. It holds the position, the size and SHA-256 of every other file, and the
SHA-256 of all that, so damage to any byte is found, in the manifest too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

import tensorflow as tf

from data import gfile
from engine.storage.atomic_files import fsync

NAME = "manifest.json"

_CHUNK_BYTES = 8 * 2**20


def write_manifest(directory: str, *, examples: int) -> None:
    """Writes the manifest of all files in a directory, and flushes everything to the disk.

    Args:
      directory: the checkpoint.
      examples: its position.
    """
    files = {}
    for name in gfile.list_dir(directory):
        path = os.path.join(directory, name)
        fsync(path)
        files[name] = {"bytes": tf.io.gfile.stat(path).length, "sha256": _digest(path)}
    path = os.path.join(directory, NAME)
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(_to_text({"examples": examples, "files": files}))
    fsync(path)
    fsync(directory)


def verify(directory: str, *, examples: int) -> str | None:
    """Compares a checkpoint with its manifest.

    Args:
      directory: the checkpoint.
      examples: the position it should have.

    Returns:
      None if it is intact; otherwise what is wrong, in a few words.
    """
    try:
        return _verify(directory, examples)
    except (tf.errors.OpError, OSError) as error:
        return " ".join(str(error).split())[:200]


def _verify(directory: str, examples: int) -> str | None:
    path = os.path.join(directory, NAME)
    if not tf.io.gfile.exists(path):
        return f"{NAME} is missing"
    with tf.io.gfile.GFile(path, "rb") as file:
        stored = file.read()
    try:
        content = json.loads(stored)
        intact = _to_text({"examples": content["examples"], "files": content["files"]}).encode() == stored
    except (ValueError, KeyError, TypeError):  # no longer JSON, or other JSON
        intact = False
    if not intact:
        return f"{NAME} is damaged"
    if content["examples"] != examples:
        return f"{NAME} is that of another checkpoint, at {content['examples']} examples"
    for name, written in content["files"].items():
        path = os.path.join(directory, name)
        if not tf.io.gfile.exists(path):
            return f"{name} is missing"
        size = tf.io.gfile.stat(path).length
        if size != written["bytes"]:
            return f"{name} has {size} bytes where {written['bytes']} were written"
        if _digest(path) != written["sha256"]:
            return f"{name} is damaged"
    return None


def _to_text(content: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1, sort_keys=True) + "\n"


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
