"""Reads the pickle of a PyTorch state dict without executing anything.

Python's unpickler calls every function that a file names. The reader here calls none: it knows only the
opcodes and names with which `torch.save` describes a dictionary of tensors, and rejects any other name with
an error that shows it. The pickle holds no numbers, only their places in the file.
"""

from __future__ import annotations

import dataclasses
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from models.pytorch.stored_tensor import ORDERED_DICT, REBUILD_TENSOR, STORAGES, Storage, StoredTensor

_PARAMETER = "torch._utils._rebuild_parameter"
_TENSORS = (REBUILD_TENSOR, "torch._utils._rebuild_tensor")  # the latter before PyTorch 0.4
_NAMES = frozenset({ORDERED_DICT, *_TENSORS, _PARAMETER, *STORAGES})
_LONGEST_NAME = 100
_DAMAGED = "its pickle is damaged"


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name in the pickle; nothing is imported for it."""

    name: str


class _Mark:
    """Where a group of values begins on the stack."""


def load(file: BinaryIO) -> dict[str, StoredTensor]:
    """Reads the state dict at the file's position, and leaves the file at the end of its pickle.

    Returns:
      The tensors by name, in the order of the file.

    Raises:
      ValueError: it is damaged, or holds anything but tensors by name.
    """
    state = load_value(file)
    if not isinstance(state, dict) or not state:
        raise ValueError(f"holds {_describe(state)}, no dictionary of tensors")
    for name, value in state.items():
        if not isinstance(value, StoredTensor):
            raise ValueError(
                f"holds {_describe(value)} under {_shorten(name)!r}, where a state dict holds tensors"
            )
    return state


def load_value(file: BinaryIO) -> Any:
    """Reads the pickle at the file's position, and leaves the file at its end.

    Returns:
      Its value: made of numbers, text, tuples, lists, dictionaries and tensors.

    Raises:
      ValueError: it is damaged, or holds anything else.
    """
    try:
        opcodes = list(_read_opcodes(file))
        # Checks all names before any opcode, so that the error about a malicious file shows the name.
        for opcode, argument in opcodes:
            if opcode in ("GLOBAL", "INST"):
                _check_name(argument)
        return _Reader().read(opcodes)
    except (IndexError, KeyError, struct.error) as error:  # an empty stack, an unknown memo, a cut number
        raise ValueError(_DAMAGED) from error


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


def _read_opcodes(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """(name, argument) of each opcode up to and including STOP, like `pickletools.genops`."""
    name = ""
    while name != "STOP":
        opcode = _OPCODES[file.read(1)]
        name = opcode.name
        try:
            if name in _LINES:
                yield name, ".".join(_read_line(file) for _ in range(_LINES[name]))
            else:
                yield name, opcode.arg.reader(file) if opcode.arg else None
        except ValueError as error:  # a number or text is cut off
            raise ValueError(_DAMAGED) from error


# pickletools would decode escape sequences in these, and so print warnings about damaged files.
_LINES = {"GLOBAL": 2, "INST": 2, "STRING": 1, "PERSID": 1}
"""Opcode -> number of lines that its argument has: for a name two, module and attribute."""


def _read_line(file: BinaryIO) -> str:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise ValueError(_DAMAGED)
    return line[:-1].decode(errors="replace")


class _Reader:
    """A stack machine with the opcodes of state dicts: one method each, looked up in `_METHODS`."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, opcodes: list[tuple[str, Any]]) -> Any:
        """Returns the value of a pickle.

        Args:
          opcodes: (name, argument) of each; the last is STOP.

        Raises:
          ValueError: an opcode or its use belongs to no state dict.
          IndexError: the stack has too few values.
          KeyError: a memo was never stored.
        """
        for name, argument in opcodes[:-1]:
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self._stack.append(argument)
            elif name in _METHODS:
                _METHODS[name](self, argument)
            else:
                raise ValueError(f"its pickle uses {name}, which no state dict needs")
        return self._stack.pop()

    def _pop_group(self) -> list[Any]:
        """Takes the values above the last mark off the stack, and the mark."""
        values: list[Any] = []
        while not isinstance(value := self._stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    def skip(self, argument: Any) -> None:
        """PROTO, FRAME: they describe the pickle itself."""

    def mark(self, argument: Any) -> None:
        self._stack.append(_Mark())

    def push_name(self, argument: str) -> None:
        self._stack.append(_check_name(argument))

    def push_stacked_name(self, argument: Any) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_check_name(".".join(x for x in (module, attribute) if isinstance(x, str))))

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, argument: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def empty_dict(self, argument: Any) -> None:
        self._stack.append({})

    def empty_list(self, argument: Any) -> None:
        self._stack.append([])

    def appends(self, argument: Any) -> None:
        items, target = self._pop_group(), self._stack[-1]
        if not isinstance(target, list):
            raise ValueError(_DAMAGED)
        target.extend(items)

    def make_tuple(self, argument: Any) -> None:
        self._stack.append(tuple(self._pop_group()))

    def make_short_tuple(self, length: int) -> None:
        """TUPLE1, TUPLE2, TUPLE3: a tuple of the last values."""
        if len(self._stack) < length:
            raise IndexError(length)
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def set_item(self, argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _update(self._stack[-1], [key, value])

    def set_items(self, argument: Any) -> None:
        items = self._pop_group()
        _update(self._stack[-1], items)

    def persistent_id(self, argument: Any) -> None:
        self._stack.append(_to_storage(self._stack.pop()))

    def reduce(self, argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_to_value(function, arguments))

    def build(self, argument: Any) -> None:
        self._stack.pop()  # `_metadata`, versions of PyTorch's modules
        if not isinstance(self._stack[-1], dict):
            raise ValueError(f"sets attributes of {_describe(self._stack[-1])}, which no state dict does")


_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset("BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8".split())
_METHODS: Mapping[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader.skip,
    "FRAME": _Reader.skip,
    "MARK": _Reader.mark,
    "GLOBAL": _Reader.push_name,
    "STACK_GLOBAL": _Reader.push_stacked_name,
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "MEMOIZE": _Reader.memoize,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "EMPTY_DICT": _Reader.empty_dict,
    "EMPTY_LIST": _Reader.empty_list,
    "APPENDS": _Reader.appends,
    "TUPLE": _Reader.make_tuple,
    "TUPLE1": lambda reader, _: reader.make_short_tuple(1),
    "TUPLE2": lambda reader, _: reader.make_short_tuple(2),
    "TUPLE3": lambda reader, _: reader.make_short_tuple(3),
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "BINPERSID": _Reader.persistent_id,
    "REDUCE": _Reader.reduce,
    "BUILD": _Reader.build,
}


def _check_name(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(
            f"names {_shorten(name)}, which does not belong in a state dict; nothing of it was executed"
        )
    return _Name(name)


def _update(target: Any, items: list[Any]) -> None:
    """Sets alternating keys and values of a dictionary."""
    keys, values = items[::2], items[1::2]
    if not isinstance(target, dict) or len(keys) != len(values):
        raise ValueError(_DAMAGED)
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, str):
            raise ValueError(f"has {_describe(key)} for a name, where a state dict has text")
        target[key] = value


def _to_storage(identity: Any) -> Storage:
    match identity:
        # The old format has a sixth entry; it is None except for storages that are parts of others.
        case ("storage", _Name(name=name), str(key), str(), int(elements), *view) if (
            name in STORAGES and elements >= 0 and view in ([], [None])
        ):
            return Storage(key, STORAGES[name], elements)
    raise ValueError("refers to something outside the file that is no storage of numbers")


def _to_value(function: Any, arguments: Any) -> Any:
    """What a call in the pickle stands for."""
    match function, arguments:
        case _Name(name=name), () if name == ORDERED_DICT:
            return {}
        case _Name(name=name), (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if (
            name in _TENSORS
        ):
            numbers = [offset, *shape, *strides]
            if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
                raise ValueError("describes a tensor of impossible shape")
            return StoredTensor(storage, offset, shape, strides)
        case _Name(name=name), (StoredTensor() as tensor, *_) if name == _PARAMETER:
            return tensor
    raise ValueError(f"calls {_describe(function)} in a way no state dict does; nothing of it was executed")


def _describe(value: Any) -> str:
    return value.name if isinstance(value, _Name) else f"a value of type {type(value).__name__}"


def _shorten(name: str) -> str:
    """The name, printable and no longer than a line."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME])
    return shown + ("..." if len(name) > _LONGEST_NAME else "")
