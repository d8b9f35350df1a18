"""Writes the pickle of a PyTorch state dict; `models.pytorch.pickle_reader` reads it."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from models.pytorch.stored_tensor import ORDERED_DICT, REBUILD_TENSOR, STORAGES, StoredTensor


def dumps(tensors: Mapping[str, StoredTensor]) -> bytes:
    """Returns the pickle (protocol 2) that `torch.save` would write for an OrderedDict of these tensors.

    Args:
      tensors: by name.
    """
    names = {dtype: name for name, dtype in STORAGES.items()}
    parts = [b"\x80\x02", _encode_global(ORDERED_DICT), b")R("]
    for name, tensor in tensors.items():
        parts += [
            _encode_text(name),
            _encode_global(REBUILD_TENSOR),
            b"((",
            _encode_text("storage"),
            _encode_global(names[tensor.storage.dtype]),
            _encode_text(tensor.storage.key),
            _encode_text("cpu"),
            _encode_integer(tensor.storage.elements),
            b"tQ",
            _encode_integer(tensor.offset),
            b"(",
            *map(_encode_integer, tensor.shape),
            b"t(",
            *map(_encode_integer, tensor.strides),
            b"t\x89",  # no gradient
            _encode_global(ORDERED_DICT),
            b")RtR",  # no hooks
        ]
    return b"".join([*parts, b"u."])


def _encode_global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _encode_text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _encode_integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    encoded = number.to_bytes(9, "little")  # LONG1: a ninth byte leaves the sign bit 0
    return b"\x8a" + bytes([len(encoded)]) + encoded
