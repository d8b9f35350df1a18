"""The pickle of a PyTorch state dict, read and written without running anything.

Python's unpickler calls whatever a file names. This machine calls nothing: it knows the opcodes and the
few names of which `torch.save` makes a dictionary of tensors, and refuses every other by its name. The
numbers themselves are not in the pickle; it says only where they lie.
"""

from __future__ import annotations

import dataclasses
import pickletools
import struct
from collections.abc import Mapping
from typing import BinaryIO

STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""What PyTorch calls the storages of each dtype."""

_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_TENSORS = (_TENSOR, "torch._utils._rebuild_tensor")  # the latter before PyTorch 0.4
_NAMES = frozenset({_DICT, *_TENSORS, _PARAMETER, *STORAGES})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset("BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8".split())
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers of one dtype, `elements` of them, in the file's record `key`."""

    key: str
    dtype: str
    elements: int


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor as a part of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle mentions; nothing is imported for it."""

    name: str


class _Mark:
    """Where a group of values begins on the stack."""


def load(file: BinaryIO) -> dict[str, StoredTensor]:
    """The tensors of a state dict by name, in the order of the file, which is left behind the pickle.

    Raises:
      ValueError: it is no state dict, is damaged, or names something else than tensors.
    """
    state = load_value(file)
    if not isinstance(state, dict) or not state:
        raise ValueError(f"holds {_kind(state)}, no dictionary of tensors")
    for name, value in state.items():
        if not isinstance(value, StoredTensor):
            raise ValueError(f"holds {_kind(value)} under {_short(name)!r}, where a state dict holds tensors")
    return state


def load_value(file: BinaryIO):
    """The value of the next pickle in the file: numbers, text, tuples, lists, dictionaries, tensors.

    Raises:
      ValueError: it is damaged, or names something else.
    """
    try:
        return _run(file)
    except (IndexError, KeyError, struct.error) as error:  # an empty stack, an unknown memo, a cut number
        raise ValueError("its pickle is damaged") from error


def _run(file: BinaryIO):
    stack, memo = [], {}

    def group():
        """Takes the values above the last mark off the stack, and the mark."""
        values = []
        while not isinstance(value := stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    opcodes = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(file)]
    for opcode, argument in opcodes:  # first of all, so that what is refused is refused by its name
        if opcode in ("GLOBAL", "INST"):
            _known(argument.replace(" ", "."))
    for opcode, argument in opcodes:
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_Mark())
            case "GLOBAL":
                stack.append(_known(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                parts = [stack.pop(), stack.pop()]
                stack.append(_known(".".join(part for part in parts[::-1] if isinstance(part, str))))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "APPENDS":
                items = group()
                if not isinstance(stack[-1], list):
                    raise ValueError("its pickle is damaged")
                stack[-1].extend(items)
            case "TUPLE":
                stack.append(tuple(group()))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = group()
                _set_items(stack[-1], items)
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, name = stack.pop(), stack.pop()
                stack.append(_made(name, arguments))
            case "BUILD":
                stack.pop()  # `_metadata`, versions of PyTorch's modules
                if not isinstance(stack[-1], dict):
                    raise ValueError(f"sets attributes of {_kind(stack[-1])}, which no state dict does")
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _TUPLES:
                first = len(stack) - _TUPLES[name]
                if first < 0:
                    raise IndexError(name)
                stack[first:] = [tuple(stack[first:])]
            case name:
                raise ValueError(f"its pickle uses {name}, which no state dict needs")
    raise IndexError("no STOP")


def _known(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(f"names {_short(name)}, which is no part of a state dict; nothing of it was run")
    return _Name(name)


def _set_items(target, items: list) -> None:
    keys, values = items[::2], items[1::2]
    if not isinstance(target, dict) or len(keys) != len(values):
        raise ValueError("its pickle is damaged")
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, str):
            raise ValueError(f"has {_kind(key)} for a name, where a state dict has text")
        target[key] = value


def _storage(identity) -> Storage:
    match identity:
        # The old format has a sixth entry, None but for storages that are parts of others.
        case ("storage", _Name(name=name), str(key), str(), int(elements), *view) if (
            name in STORAGES and elements >= 0 and view in ([], [None])
        ):
            return Storage(key, STORAGES[name], elements)
    raise ValueError("refers to something outside the file that is no storage of numbers")


def _made(name, arguments):
    match name, arguments:
        case _Name(name=called), () if called == _DICT:
            return {}
        case _Name(name=called), (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if (
            called in _TENSORS
        ):
            numbers = [offset, *shape, *strides]
            if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
                raise ValueError("describes a tensor of impossible shape")
            return StoredTensor(storage, offset, shape, strides)
        case _Name(name=called), (StoredTensor() as tensor, *_) if called == _PARAMETER:
            return tensor
    raise ValueError(f"calls {_kind(name)} in a way no state dict does; nothing of it was run")


def _kind(value) -> str:
    return value.name if isinstance(value, _Name) else f"a value of type {type(value).__name__}"


def _short(name: str) -> str:
    """At most a line, whatever the file says."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME])
    return shown + ("..." if len(name) > _LONGEST_NAME else "")


def dumps(tensors: Mapping[str, StoredTensor]) -> bytes:
    """The pickle (protocol 2) that `torch.save` would write of an OrderedDict of these tensors."""
    names = {dtype: name for name, dtype in STORAGES.items()}
    parts = [b"\x80\x02", _global(_DICT), b")R("]
    for name, tensor in tensors.items():
        storage = tensor.storage
        parts += [_text(name), _global(_TENSOR), b"(("]
        parts += [_text("storage"), _global(names[storage.dtype]), _text(storage.key), _text("cpu")]
        parts += [_integer(storage.elements), b"tQ", _integer(tensor.offset)]
        parts += [b"(", *map(_integer, tensor.shape), b"t(", *map(_integer, tensor.strides), b"t"]
        parts += [b"\x89", _global(_DICT), b")RtR"]  # no gradient, no hooks
    return b"".join([*parts, b"u."])


def _global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    encoded = number.to_bytes(9, "little")  # LONG1: the sign has its bit
    return b"\x8a" + bytes([len(encoded)]) + encoded
