"""Counts what a program does from the text of its HLO, before XLA has optimised it.

These counts depend on the operations of the program alone, not on the machine: a convolution more, one in
another dtype, a transpose, or a place where a GPU waits for its host changes them.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator

_INSTRUCTION = re.compile(r"^\s*(ROOT )?(%\S+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?(%\S+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}

COUNTED = ("convolution", "dot", "transpose", "reduce", "all-reduce", "gather", "scatter", "sort")
"""Operations with kernels of their own on a GPU; element-wise ones are fused with their neighbours."""

WAITS = ("conditional", "while")
"""Before each of these the host of a GPU waits for a value, to know what to start next."""

HOST = ("send", "send-done", "recv", "recv-done", "infeed", "outfeed")
"""Operations in which the host takes part."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of HLO: `shape` operation(`rest`, the operands and attributes."""

    shape: str
    operation: str
    rest: str


def needed_instructions(hlo: str) -> list[Instruction]:
    """The instructions that a result depends on; XLA removes the others.

    A computation that is called several times counts once.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    roots: dict[str, str] = {}
    entry = here = ""
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            here = header[1]
            computations[here] = {}
            entry = here if line.startswith("ENTRY") else entry
        elif found := _INSTRUCTION.match(line):
            root, name, *parts = found.groups()
            computations[here][name] = Instruction(*parts)
            if root:
                roots[here] = name
    needed: dict[tuple[str, str], Instruction] = {}
    waiting = [(entry, roots[entry])]
    while waiting:
        computation, name = waiting.pop()
        if (computation, name) in needed:
            continue
        instruction = needed[computation, name] = computations[computation][name]
        for other in re.findall(r"%[^\s,(){}]+", instruction.rest):
            if other in computations[computation]:
                waiting.append((computation, other))
            elif other in computations:
                waiting.append((other, roots[other]))
    return list(needed.values())


def counts(hlo: str) -> dict[str, int]:
    """What a program does.

    Returns:
      The number of each operation of `COUNTED` and `WAITS` that there is, the bytes that transposes and
      all-reduces write, and by dtype the floating-point operations of convolutions ("convolution f32 FLOP").
    """
    found: collections.Counter[str] = collections.Counter()
    for each in needed_instructions(hlo):
        if each.operation in COUNTED + WAITS:
            found[each.operation] += 1
        if each.operation in ("transpose", "all-reduce"):
            found[f"{each.operation} bytes"] += bytes_of(each.shape)
        if each.operation == "convolution":
            found[f"convolution {_ARRAY.search(each.shape)[1]} FLOP"] += flop_of_convolution(each)
    return dict(sorted(found.items()))


def what_stops_a_gpu(hlo: str) -> list[str]:
    """The instructions that involve the host, or have a shape that depends on values."""
    return [
        f"{each.shape} {each.operation}({each.rest[:200]}"
        for each in needed_instructions(hlo)
        if each.operation in HOST
        or "<=" in each.shape
        or (each.operation == "custom-call" and "callback" in each.rest)
    ]


def bytes_of(shape: str) -> int:
    """Bytes of an HLO shape such as "f32[2,3]{1,0}" or "(f32[2], s32[])"."""
    return sum(_BYTES[dtype] * math.prod(_sizes(sizes)) for dtype, sizes in _ARRAY.findall(shape))


def flop_of_convolution(convolution: Instruction) -> int:
    """Floating-point operations of a convolution; products with padding and with holes are not counted.

    So a convolution and both of its gradients have equally many: each is a sum over the same triples of a
    pixel, a weight and a result.
    """
    rest = convolution.rest
    (_, left), (_, right) = _ARRAY.findall(rest)[:2]  # the operands stand first, with their shapes
    of_left, of_right, of_out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest).groups()
    left, right, out = _sizes(left), _sizes(right), _sizes(_ARRAY.search(convolution.shape)[2])
    window = re.search(r"window=\{(.*?)\}", rest)
    window = dict(part.split("=") for part in window[1].split()) if window else {}
    assert "batch_group_count" not in rest, rest

    def numbers(key: str, otherwise: str) -> Iterator[tuple[int, ...]]:
        given = window[key].split("x") if key in window else itertools.repeat(otherwise)
        return (tuple(map(int, part.split("_"))) for part in given)

    settings = [numbers(key, "1") for key in ("size", "stride", "lhs_dilate", "rhs_dilate")]
    products = 1
    for axis, ((size,), (stride,), (holes,), (spread,), (low, _)) in enumerate(
        zip(*settings, numbers("pad", "0_0"), strict=False)
    ):
        if str(axis) not in of_out:
            break
        pixels = (left[of_left.index(str(axis))] - 1) * holes + 1
        places = (
            at * stride + k * spread - low for at in range(out[of_out.index(str(axis))]) for k in range(size)
        )
        products *= sum(0 <= place < pixels and place % holes == 0 for place in places)
    features = out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")]
    return 2 * products * features


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]
