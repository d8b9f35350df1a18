"""PyTorch's .pth files of state dicts, read and written without PyTorch.

The format since PyTorch 1.6 is a zip archive of uncompressed records in one folder: `data.pkl` (see
`models.pytorch.pickle_reader`), the numbers of each storage as `data/<key>`, `byteorder` and `version`.

The older format is that of the files that the reference's authors published. It has five pickles (a magic
number, the version, facts about the machine, the state dict, the keys of its storages), then the size (int64)
and the numbers of each storage. This module reads it, but does not write it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from engine.errors import ConfigurationError
from models.pytorch import pickle_reader, pickle_writer
from models.pytorch.stored_tensor import Storage, StoredTensor

_OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_VERSION = 1001
_PICKLE = b"\x80"
_LARGEST_PICKLE_BYTES = 2**24  # of a hundred thousand tensors, about
_SAVE_AGAIN = "save it again from PyTorch with torch.save(network.state_dict(), FILE)"


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a .pth file without executing anything in it.

    Args:
      path: the file, local or in an object store.

    Returns:
      Name -> array in PyTorch's layout and the file's dtype, read-only; bfloat16 becomes float32, exactly.

    Raises:
      ConfigurationError: the file cannot be read, is damaged, or holds anything but tensors by name.
      UnicodeEncodeError: the path is not UTF-8.
    """
    path.encode()  # for such a path TensorFlow raises a TypeError, which programs do not print as one line
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            contents = file.read()
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "message", str(error)) or type(error).__name__
        raise ConfigurationError(
            f"{path}: cannot be read ({reason}); give a file written by torch.save"
        ) from error
    try:
        if contents.startswith(_OLD_MAGIC):
            return _read_old(io.BytesIO(contents[len(_OLD_MAGIC) :]))
        if contents.startswith(_PICKLE):
            pickle_reader.load(io.BytesIO(contents))  # its error is more precise than the next one
            raise ValueError("is a bare pickle, which torch.save does not write")
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            return _read(archive, size_bytes=len(contents))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ConfigurationError(
            f"{path}: is not a complete file of torch.save; copy it again, or {_SAVE_AGAIN}"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}; {_SAVE_AGAIN}") from error


def write_state_dict(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a file that `torch.load(path, weights_only=True)` reads as an OrderedDict.

    A reader sees the old file or the whole new one, never a part. Equal arrays make equal files.

    Args:
      path: the file, local or in an object store.
      arrays: name -> array in PyTorch's layout, of a dtype of `stored_tensor.STORAGES` that NumPy has.

    Raises:
      ConfigurationError: the file cannot be written.
      UnicodeEncodeError: the path is not UTF-8.
    """
    contents = _archive(arrays)
    path.encode()  # as in `read_state_dict`
    # Not the name with a suffix, which may be longer than a file system allows.
    temporary = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    try:
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(contents)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):  # the error above is the one to report
            tf.io.gfile.remove(temporary)
        raise ConfigurationError(
            f"{path}: cannot be written ({error.message or type(error).__name__}); choose another path"
        ) from error


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The zip archive with these arrays."""
    tensors, numbers = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        little_endian = np.asarray(array, order="C").astype(array.dtype.newbyteorder("<"), copy=False)
        strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        storage = Storage(str(key), array.dtype.name, array.size)
        tensors[name] = StoredTensor(storage, 0, array.shape, strides)
        numbers[f"data/{key}"] = little_endian.tobytes()
    records = {
        "data.pkl": pickle_writer.dumps(tensors),
        "byteorder": b"little",
        **numbers,
        "version": b"3\n",
    }
    contents = io.BytesIO()
    with zipfile.ZipFile(contents, "w", zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            # ZipInfo's date is 1980, so that equal arrays make equal files.
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), record)
    return contents.getvalue()


def _read(archive: zipfile.ZipFile, *, size_bytes: int) -> dict[str, np.ndarray]:
    """Reads the format since PyTorch 1.6."""
    names, records = archive.namelist(), archive.infolist()
    # Uncompressed records that do not overlap are no larger than the file, so that a small file cannot fill
    # the memory.
    if any(info.compress_type != zipfile.ZIP_STORED for info in records):
        raise ValueError("is a compressed archive, which torch.save does not write")
    if sum(info.file_size for info in records) > size_bytes:
        raise ValueError("has records that overlap, which torch.save does not write")
    folder = _find_folder(names)
    byte_order = "little"
    if f"{folder}byteorder" in names:
        byte_order = archive.read(f"{folder}byteorder").decode("ascii")
    if byte_order not in ("little", "big"):
        raise ValueError(f"has an unknown byte order {byte_order[:20]!r}")
    # The objects of a pickle can take 86 times its size (measured).
    if archive.getinfo(f"{folder}data.pkl").file_size > _LARGEST_PICKLE_BYTES:
        raise ValueError(
            f"has a data.pkl of more than {_LARGEST_PICKLE_BYTES >> 20} MiB, so it is no state dict"
        )
    tensors = pickle_reader.load(io.BytesIO(archive.read(f"{folder}data.pkl")))
    storages: dict[Storage, np.ndarray] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage not in storages:
            record = f"{folder}data/{storage.key}"
            if record not in names:
                raise ValueError(f"is damaged: {name} is stored in data/{storage.key}, which is not there")
            storages[storage] = _to_numbers(archive.read(record), storage, byte_order)
    return {name: _view(storages[tensor.storage], tensor, name) for name, tensor in tensors.items()}


def _find_folder(names: Iterable[str]) -> str:
    """The archive's one folder with a state dict, such as "archive/"."""
    folders = {name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")}
    folders = {folder for folder in folders if folder.count("/") == 1}
    if len(folders) != 1:
        raise ValueError("is a zip archive without a state dict (no data.pkl in its one folder)")
    return folders.pop()


def _read_old(file: io.BytesIO) -> dict[str, np.ndarray]:
    """Reads the format before PyTorch 1.6, from the end of its magic number."""
    version, system = pickle_reader.load_value(file), pickle_reader.load_value(file)
    if version != _OLD_VERSION or not isinstance(system, dict):
        raise ValueError("is of an unknown version of PyTorch's format before 1.6")
    tensors, keys = pickle_reader.load(file), pickle_reader.load_value(file)
    wanted = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or len(wanted) != len({t.storage for t in tensors.values()}):
        raise ValueError("is damaged: it does not list its storages")
    byte_order: Literal["little", "big"] = "little" if system.get("little_endian", True) else "big"
    storages: dict[Storage, np.ndarray] = {}
    for key in keys:
        storage = wanted.get(key) if isinstance(key, str) else None
        if storage is None or file.read(8) != storage.elements.to_bytes(8, byte_order):
            raise ValueError("is damaged: its storages are not those of its tensors")
        size = storage.elements * _stored_dtype(storage).itemsize
        storages[storage] = _to_numbers(file.read(size), storage, byte_order)
    if len(storages) != len(wanted):
        raise ValueError("is damaged: numbers are missing at its end")
    return {name: _view(storages[tensor.storage], tensor, name) for name, tensor in tensors.items()}


def _stored_dtype(storage: Storage) -> np.dtype:
    return np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype)


def _to_numbers(record: bytes, storage: Storage, byte_order: str) -> np.ndarray:
    """The numbers of one storage: [elements], in this machine's byte order."""
    stored = _stored_dtype(storage)
    if len(record) != storage.elements * stored.itemsize:
        raise ValueError(
            f"is damaged: data/{storage.key} has {len(record)} bytes, but its tensors need "
            f"{storage.elements * stored.itemsize}"
        )
    numbers = np.frombuffer(record, stored.newbyteorder("<" if byte_order == "little" else ">"))
    if storage.dtype == "bfloat16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _view(numbers: np.ndarray, tensor: StoredTensor, name: str) -> np.ndarray:
    """A tensor as a read-only view of its storage's numbers."""
    size = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    # Strides of 0 would let a few bytes claim a tensor of any size; no weight needs them.
    if size > numbers.size or (size and last >= numbers.size):
        raise ValueError(f"is damaged: {name} is larger than its storage")
    if not size:
        return np.empty(tensor.shape, numbers.dtype)
    steps = [step if n > 1 else 0 for n, step in zip(tensor.shape, tensor.strides, strict=True)]
    strides = [step * numbers.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
