"""A window of steps that TensorFlow's profiler records, on request."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.storage.file_errors import reraise_write_errors


class ProfilerWindow:
    """Profiles some steps of a run, once. The package tensorboard-plugin-profile makes TensorBoard show them.

    Args:
      experiment: its `profile_at` and `profile_steps` are used.
      directory: TensorBoard's, which gets `plugins/profile/`.
      start_examples: where this process begins. A run that goes on after the window does not repeat it.
      records: False on workers that only have to take the same numbers of steps.
    """

    def __init__(self, experiment: Experiment, directory: str, *, start_examples: int, records: bool = True):
        self._directory = directory
        self._records = records
        self._at_examples = math.inf
        self._steps_left = experiment.profile_steps
        self._is_running = False
        if experiment.profile_at is not None and start_examples <= experiment.examples("profile_at"):
            self._at_examples = experiment.examples("profile_at")

    def before_call(self, examples: int) -> int | None:
        """Begins the window if the run has reached it.

        Args:
          examples: position of the run.

        Returns:
          The most steps that the next call of the loop may take; None if any number.

        Raises:
          ConfigurationError: another profiler runs already, or the directory cannot be written.
        """
        if examples < self._at_examples or not self._steps_left:
            return None
        if self._records and not self._is_running:
            try:
                with reraise_write_errors(self._directory):
                    tf.profiler.experimental.start(self._directory)
            except tf.errors.AlreadyExistsError as error:
                raise ConfigurationError(
                    "Experiment.profile_at: another profiler runs in this process; stop it, or set it to None"
                ) from error
            self._is_running = True
        return self._steps_left

    def after_call(self, steps: int) -> None:
        """Ends the window if it is complete.

        Args:
          steps: that the call took.
        """
        if self._is_running or not self._records:
            self._steps_left = max(0, self._steps_left - steps)
        if not self._steps_left:
            self.close()

    def close(self) -> None:
        """Ends the window, complete or not, and writes what it holds."""
        if self._is_running:
            self._is_running = False
            with reraise_write_errors(self._directory):
                tf.profiler.experimental.stop()
