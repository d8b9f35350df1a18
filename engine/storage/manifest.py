"""What tells a whole, undamaged checkpoint from any other directory: its manifest.

`manifest.json` is written last. It has the position, the size and SHA-256 of every file beside it, and
the SHA-256 of all that, so that damage to any byte, of the manifest too, is found.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

import tensorflow as tf

from engine.storage.atomic_files import flush

NAME = "manifest.json"

_CHUNK_BYTES = 8 * 2**20


def write_manifest(directory: str, *, examples: int) -> None:
    """Notes every file of a directory, and flushes all of it to the disk.

    Args:
      examples: the position that the files are of.
    """
    files = {}
    for name in sorted(tf.io.gfile.listdir(directory)):
        path = os.path.join(directory, name)
        flush(path)
        files[name] = {"bytes": tf.io.gfile.stat(path).length, "sha256": _digest(path)}
    path = os.path.join(directory, NAME)
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(_text({"examples": examples, "files": files}))
    flush(path)
    flush(directory)


def damage(directory: str, *, examples: int) -> str | None:
    """What is wrong with a checkpoint, as a few words; None if it is as it was written.

    Args:
      examples: the position it is taken for.
    """
    try:
        return _damage(directory, examples)
    except (tf.errors.OpError, OSError) as error:
        return " ".join(str(error).split())[:200]


def _damage(directory: str, examples: int) -> str | None:
    path = os.path.join(directory, NAME)
    if not tf.io.gfile.exists(path):
        return f"{NAME} is missing"
    with tf.io.gfile.GFile(path, "rb") as file:
        stored = file.read()
    try:
        content = json.loads(stored)
        intact = _text({"examples": content["examples"], "files": content["files"]}).encode() == stored
    except (ValueError, KeyError, TypeError):  # not JSON any more, or other JSON
        intact = False
    if not intact:
        return f"{NAME} is damaged"
    if content["examples"] != examples:
        return f"{NAME} is that of another checkpoint, at {content['examples']} examples"
    for name, noted in content["files"].items():
        path = os.path.join(directory, name)
        if not tf.io.gfile.exists(path):
            return f"{name} is missing"
        size = tf.io.gfile.stat(path).length
        if size != noted["bytes"]:
            return f"{name} has {size} bytes where {noted['bytes']} were written"
        if _digest(path) != noted["sha256"]:
            return f"{name} is damaged"
    return None


def _text(content: Mapping) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1, sort_keys=True) + "\n"


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
