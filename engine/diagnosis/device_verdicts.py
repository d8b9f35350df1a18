"""Whether a training fits on each known device, and otherwise what would make it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from engine.batching.memory_model import MemoryModel
from engine.diagnosis.device_table import KnownDevice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demand:
    """What a step needs on one device with some settings.

    Attributes:
      whole_bytes: with the planned micro-batch, in a step of one micro-batch.
      accumulated: of a step of several micro-batches, as a function of the micro-batch.
    """

    whole_bytes: int
    accumulated: MemoryModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change of settings that saves memory.

    Attributes:
      name: of what a training fits with; "{half}" stands for the device's 16-bit precision.
      demand: computes the demand, which takes a trace of the step.
    """

    name: str
    demand: Callable[[], Demand]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer for one device.

    Attributes:
      device: which.
      text: "fits", "fits with ...", or "does not fit".
      need_bytes: of the settings that the text names; of the least demanding ones if nothing fits.
    """

    device: KnownDevice
    text: str
    need_bytes: int


def verdict(device: KnownDevice, *, planned: Demand, micro_batch: int, remedies: Sequence[Remedy]) -> Verdict:
    """Finds the first of several settings that fits.

    The order is: as planned; with accumulation; then each remedy, without accumulation and with it.

    Args:
      device: the device.
      planned: as the run is configured.
      micro_batch: examples on each device that the run plans at once.
      remedies: in order of preference.
    """
    least = planned.accumulated.at(1)
    for name, demand in [("", lambda: planned), *((each.name, each.demand) for each in remedies)]:
        found, name = demand(), name.format(half=device.half_precision)
        least = min(least, found.whole_bytes, found.accumulated.at(1))
        if found.whole_bytes <= device.usable_bytes:
            text = f"fits with {name}" if name else "fits"
            return Verdict(device=device, text=text, need_bytes=found.whole_bytes)
        largest = min(found.accumulated.largest(device.usable_bytes), micro_batch - 1)
        if largest >= 1:
            what = f"{name} and accumulation" if name else "accumulation"
            return Verdict(
                device=device,
                text=f"fits with {what} (micro-batch {largest})",
                need_bytes=found.accumulated.at(largest),
            )
    return Verdict(device=device, text="does not fit", need_bytes=least)
