"""Which sizes of pictures the networks of a run take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import Task

_TraceFunction = Callable[[int, int], None]


class SizeCheck:
    """Refuses pictures of sizes that the networks of a run do not take.

    Args:
      task: of the run.
      networks: those of the run.
      example: shapes of the run's examples.
      source: the feature that a picture takes the place of.
      trace: traces the translation of a picture of a height and width in pixels.
    """

    def __init__(
        self,
        task: Task,
        *,
        networks: Iterable[keras.Model],
        example: Mapping[str, tf.TensorSpec],
        source: str,
        trace: _TraceFunction,
    ):
        self._task, self._example, self._source, self._trace = task, example, source, trace
        # TensorFlow relaxes the shapes of a function that is called with several, and then a network with an
        # input of fixed size does not notice another one.
        self._has_fixed_size = any(map(_is_of_fixed_size, networks))
        height, width, _ = example[source].shape
        self._trained = (height, width)
        self._known = {self._trained}

    def check(self, height: int, width: int) -> None:
        """Checks a size before a picture is translated.

        Raises:
          ConfigurationError: the networks do not take it.
        """
        if (height, width) in self._known:
            return
        with self.reraise_errors(height, width):
            self._task.check_translation(self._scaled(height, width))
            if self._has_fixed_size:
                self._trace(height, width)
        self._known.add((height, width))

    @contextlib.contextmanager
    def reraise_errors(self, height: int, width: int) -> Iterator[None]:
        """Raises errors of the networks as a ConfigurationError unless the size is that of the training."""
        try:
            yield
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            if isinstance(error, ConfigurationError) or (height, width) == self._trained:
                raise
            trained_height, trained_width = self._trained
            raise ConfigurationError(
                f"the network, trained on {trained_height}x{trained_width} pixels (height x width), does not "
                f"take {height}x{width} ({_reason(error)}); resize the picture"
            ) from error

    def _scaled(self, height: int, width: int) -> dict[str, tf.TensorSpec]:
        """The shapes of examples that are scaled as the picture is."""
        trained_height, trained_width = self._trained
        scaled = {
            name: tf.TensorSpec(
                [
                    spec.shape[0] * height // trained_height,
                    spec.shape[1] * width // trained_width,
                    *spec.shape[2:],
                ],
                spec.dtype,
            )
            for name, spec in self._example.items()
            if spec.shape.rank == 3
        }
        return {**self._example, **scaled}


def _reason(error: Exception) -> str:
    """The line of an error that says what is wrong: TensorFlow's last one, after a stack; Keras's first."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("[[")]
    chosen = told[-1 if isinstance(error, tf.errors.OpError) else 0] if told else type(error).__name__
    return chosen.partition(" [Op:")[0].rstrip(".")


def _is_of_fixed_size(network: keras.Model) -> bool:
    """Whether a network is built for images of one height or width."""
    shapes = [tuple(image.shape) for image in getattr(network, "inputs", None) or ()]
    return any(len(shape) == 4 and any(shape[1:3]) for shape in shapes)
