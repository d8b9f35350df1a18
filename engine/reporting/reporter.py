"""Passes what a run reports to its writers: console, files, TensorBoard, and a tracker if there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from engine.distribution.determinism import is_deterministic
from engine.distribution.devices import Devices
from engine.evaluation.results import SplitEvaluation
from engine.experiment import Experiment
from engine.inner_loop.train_state import trainable_parameters
from engine.log_writer import HyperParameters, LogWriter, ReportedRun
from engine.reporting.console import ConsoleWriter
from engine.reporting.log_rows import evaluation_row
from engine.reporting.run_files import RunFilesWriter
from engine.reporting.tensorboard import TensorboardWriter
from engine.storage.run_directory import RunDirectory


class Reporter:
    """Reports to the writers of a run. Only the chief has writers.

    Args:
      run: the run directory to write to.
      total_examples: the length of the progress bar.
      done_examples: where the progress bar starts.
      is_chief: whether this process writes anything.
      examples_per_epoch: for the progress bar; None does not show the epoch.
      hyper_parameters: settings to compare runs by.
      tracker: one more writer.
      device_names: devices whose memory the progress bar shows, if they tell it.

    Raises:
      ConfigurationError: a writer cannot start.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        total_examples: int,
        done_examples: int,
        is_chief: bool = True,
        examples_per_epoch: int | None = None,
        hyper_parameters: HyperParameters | None = None,
        tracker: LogWriter | None = None,
        device_names: Sequence[str] = (),
    ):
        self._writers: list[LogWriter] = []
        if not is_chief:
            return
        reported = ReportedRun(
            path=run.path,
            done_examples=done_examples,
            total_examples=total_examples,
            examples_per_epoch=examples_per_epoch,
            hyper_parameters=hyper_parameters or {},
        )
        # The files come first: they are what a run is judged and continued by.
        console = ConsoleWriter(run, device_names=device_names)
        own = (RunFilesWriter(run), TensorboardWriter(run.tensorboard), console)
        try:
            for writer in (*own, *([tracker] if tracker else [])):
                self._writers.append(writer)
                writer.start(reported)
        except BaseException:
            self.close()
            raise

    def write_line(self, text: str) -> None:
        """Writes one or more lines for people. Other threads may call it."""
        for writer in self._writers:
            writer.write_line(text)

    def update_progress(self, examples: int) -> None:
        """Shows a position in examples."""
        for writer in self._writers:
            writer.update_progress(examples)

    def log_row(self, row: Mapping) -> None:
        """Writes a log event: a row of train.jsonl."""
        for writer in self._writers:
            writer.write_row(row)

    def log_evaluation(self, evaluation: SplitEvaluation, *, split: str, step: int, examples: int) -> None:
        """Writes an evaluation: a row of eval.jsonl, and a line."""
        row = evaluation_row(evaluation, split=split, step=step, examples=examples)
        for writer in self._writers:
            writer.write_evaluation(row)
        images = f"{evaluation.examples} image{'' if evaluation.examples == 1 else 's'}"
        self.write_line(f"evaluated {images} of {split}: {evaluation.summary}")

    def log_samples(self, grid: np.ndarray, *, examples: int) -> None:
        """Writes a sample grid."""
        for writer in self._writers:
            writer.write_samples(grid, examples=examples)

    def log_config(self, text: str) -> None:
        """Writes the configuration."""
        for writer in self._writers:
            writer.write_config(text)

    def log_weights(self, networks: Mapping[str, keras.Model], *, examples: int) -> None:
        """Writes histograms of all weights of networks, moving statistics included."""
        if not self._writers:
            return
        weights = {
            f"weights/{name}/{weight.path}": weight.numpy()
            for name, network in networks.items()
            for weight in network.weights
        }
        for writer in self._writers:
            writer.write_weights(weights, examples=examples)

    def close(self) -> None:
        """Closes all writers, even if one of them fails."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


def opening_line(
    experiment: Experiment,
    devices: Devices,
    networks: Mapping[str, keras.Model],
    *,
    examples: int,
    total: int,
) -> str:
    """The first line of a run: its position, devices, precision and networks."""
    if examples >= total:
        return f"already complete at {examples} examples; raise TOTAL_EXAMPLES to continue"
    parameters = ", ".join(f"{name} {trainable_parameters(network):,}" for name, network in networks.items())
    gpus = f" ({', '.join(map(str, devices.gpus))})" if experiment.gpus != "all" else ""
    return (
        f"{f'resuming at {examples} of' if examples else 'training'} "
        f"{total} examples ({experiment.data.train_examples} an epoch) on "
        f"{devices.replicas} x {devices.kind}{gpus}, "
        f"{experiment.precision}{', deterministic' if is_deterministic() else ''}"
        f"{', XLA' if experiment.jit_compile else ''}; parameters: {parameters}"
    )
