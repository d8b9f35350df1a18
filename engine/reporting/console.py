"""What a run shows on the console: a progress bar on a terminal, and lines, which log.txt gets too."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from engine.distribution.device_memory import peak_device_bytes
from engine.distribution.host_memory import resident_bytes
from engine.log_writer import LogWriter, ReportedRun
from engine.reporting.closed_terminal import allow_closed_terminal
from engine.storage.atomic_files import append_text
from engine.storage.run_directory import RunDirectory

_BAR = "{desc}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} ex{postfix}"
_SPEED_SEC = 30.0  # the bar's speed is that of the last seconds, so that it follows a growing batch


class ConsoleWriter(LogWriter):
    """Prints lines above a progress bar, and appends them to log.txt. Without a terminal there is no bar.

    Args:
      run: the run directory.
      device_names: devices whose memory the bar shows, if they tell it.
    """

    def __init__(self, run: RunDirectory, *, device_names: Sequence[str] = ()):
        self._run = run
        self._device_names = device_names
        self._lock = threading.Lock()
        self._total = 0
        self._examples_per_epoch: int | None = None
        self._bar: tqdm = None
        self._reached: list[tuple[float, int]] = []

    def start(self, run: ReportedRun) -> None:
        """Shows the bar."""
        self._total = run.total_examples
        self._examples_per_epoch = run.examples_per_epoch
        self._bar = tqdm(
            total=run.total_examples,
            initial=run.done_examples,
            bar_format=_BAR,
            dynamic_ncols=True,
            miniters=1,
            disable=None,  # only on a terminal
        )

    def update_progress(self, examples: int) -> None:
        """Moves the bar, and shows epoch, speed, memory and the time left."""
        if self._bar.disable:
            return
        now = time.monotonic()
        self._reached.append((now, examples))
        while len(self._reached) > 2 and self._reached[1][0] < now - _SPEED_SEC:
            del self._reached[0]
        with allow_closed_terminal():
            if self._examples_per_epoch:
                self._bar.set_description_str(
                    f"epoch {examples / self._examples_per_epoch:.2f} ", refresh=False
                )
            self._bar.set_postfix_str("  ".join(self._figures(examples)), refresh=False)
            self._bar.update(examples - self._bar.n)

    def _figures(self, examples: int) -> list[str]:
        memory = _memory(resident_bytes(), peak_device_bytes(self._device_names))
        (began, first), (ended, last) = self._reached[0], self._reached[-1]
        # The first call of the loop compiles: there is no speed before the second.
        if last == first or ended == began:
            return ["starting", memory]
        rate = (last - first) / (ended - began)
        # Memory comes last, because a narrow terminal cuts the end.
        return [f"{rate:.1f} ex/s", f"{clock(max(0, self._total - examples) / rate)} left", memory]

    def write_line(self, text: str) -> None:
        """Prints one or more lines above the bar and appends them to log.txt."""
        with self._lock:
            with allow_closed_terminal():
                if not self._bar.disable:
                    self._bar.clear()
                print(text, flush=True)
                if not self._bar.disable:
                    self._bar.refresh()
            append_text(self._run.console_log, text + "\n")

    def write_row(self, row: Mapping[str, float]) -> None:
        """Prints a status line."""
        self.write_line(status_line(row, total_examples=self._total))

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            with allow_closed_terminal():
                self._bar.close()


def status_line(row: Mapping[str, float], *, total_examples: int) -> str:
    """A row of train.jsonl as a line for people: position, losses, speed, memory and time left."""
    losses: dict[str, list[str]] = {}
    for name, value in row.items():
        kind, _, rest = name.partition("/")
        if kind == "loss":
            phase, _, term = rest.partition("/")
            losses.setdefault(phase, []).append(f"{term} {value:.3f}")
    rate = row["examples_per_sec"]
    # The last batch may go beyond the total.
    left_sec = max(0, total_examples - row["examples"]) / rate if rate else 0.0
    return (
        f"{row['examples']:>8}/{total_examples} ex  epoch {row['epoch']:.2f}  batch "
        f"{row['global_batch']}  "
        + "  ".join(f"{phase}: {' '.join(terms)}" for phase, terms in losses.items())
        + f"  {rate:.1f} ex/s  data wait {100 * row['data_wait_fraction']:.0f} %"
        f"  {_memory(row['host_memory_bytes'], row.get('device_memory_bytes'))}  ETA {clock(left_sec)}"
    )


def _memory(host_bytes: float, device_bytes: float | None) -> str:
    host = f"host {host_bytes / 2**30:.1f} GiB"
    return host if device_bytes is None else f"{host}, device {device_bytes / 2**30:.1f} GiB"


def clock(sec: float) -> str:
    """A time in hours, minutes and seconds for people, such as "1h05m" or "2m07s"."""
    hours, rest = divmod(round(sec), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
