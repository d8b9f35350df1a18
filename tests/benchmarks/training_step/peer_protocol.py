"""How `compare` drives a peer: a process that makes steps when it is told to.

The peer builds its networks, makes its first steps, and writes one line. For every line that it reads, the
number of steps, it makes so many and writes one line of JSON. It needs only the standard library, so that
peers of other environments can import it.
"""

import json
import sys
import time
from collections.abc import Callable


def serve(
    step: Callable[[], object],
    *,
    flop_of_step: float = 0.0,
    warm_up_steps: int = 2,
    finish: Callable[[], object] | None = None,
    peak_bytes: Callable[[], int] | None = None,
) -> None:
    """Makes steps on demand until stdin ends.

    Args:
      step: makes one step, and returns when it is done, or earlier if there is `finish`.
      flop_of_step: floating-point operations of one step, if the peer knows them.
      warm_up_steps: steps before the first line, which compile and allocate.
      finish: returns when all steps are done.
      peak_bytes: the most memory so far, of a device; None: of the process.
    """
    began = time.perf_counter()
    for _ in range(warm_up_steps):
        step()
    if finish:
        finish()
    _write({"warm_up_sec": time.perf_counter() - began, "flop": flop_of_step})
    for line in sys.stdin:
        steps = int(line)
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        if finish:
            finish()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        _write(
            {
                "sec": wall / steps,
                "processor_sec": processor / steps,
                "peak_bytes": (peak_bytes or _peak_bytes)(),
            }
        )


def _write(row: dict[str, float]) -> None:
    print(json.dumps(row), flush=True)


def _peak_bytes() -> int:
    """The most memory that this process has had."""
    with open("/proc/self/status", encoding="ascii") as status:
        peak_kib = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(peak_kib) * 1024
