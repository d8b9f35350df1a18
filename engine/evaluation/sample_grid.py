"""Image grids of fixed inputs, for comparison over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.input_pipeline.pictures import to_picture
from engine.task import Task
from engine.training_data import TrainingData


class SampleGrid:
    """Renders the same examples at every call, so that the grids of a run can be compared.

    Args:
      task: its `preview` makes the columns.
      data: the first examples of its evaluation split are the fixed inputs.
      networks: by name; `render` uses their values at that time.
      rows: examples shown, one in each row.
    """

    def __init__(self, *, task: Task, data: TrainingData, networks: Mapping[str, keras.Model], rows: int = 4):
        self._task = task
        self._data = data
        self._networks = networks
        # Read only once, so the files need not exist later.
        with reraise_record_errors(data, data.evaluation_split):
            first = next(iter(data.evaluation(data.evaluation_split, batch=rows)))
        dtype = keras.config.floatx()
        self._batch = {name: tf.cast(x, dtype) for name, x in first.items() if x.dtype.is_floating}

    def render(self) -> np.ndarray:
        """The grid, uint8 [rows * H, columns * W, 1 or 3]; see `join_columns`."""
        columns = [to_picture(self._data, x, role=name) for name, x in self._preview().items()]
        return np.concatenate(join_columns(columns))

    @tf.function(autograph=False)
    def _preview(self) -> Mapping[str, tf.Tensor]:
        return self._task.preview(self._networks, self._batch)


def join_columns(columns: Sequence[tf.Tensor]) -> np.ndarray:
    """Puts images beside each other.

    Args:
      columns: uint8 [N, H, W, C]. Where C differs: of 2 channels the first is shown, of more than 3 the
        first 3, and grey becomes RGB beside RGB. Where H and W differ: smaller images are enlarged, nearest
        neighbour.

    Returns:
      uint8 [N, H, columns * W, 1 or 3], where H and W are the largest.
    """
    shown = [np.asarray(column)[..., : 1 if column.shape[-1] < 3 else 3] for column in columns]
    for axis in (1, 2):
        size = max(column.shape[axis] for column in shown)
        shown = [np.take(column, np.arange(size) * column.shape[axis] // size, axis=axis) for column in shown]
    channels = max(column.shape[-1] for column in shown)
    shown = [np.broadcast_to(column, (*column.shape[:-1], channels)) for column in shown]
    return np.concatenate(shown, axis=2)


def write_png(path: str, picture: np.ndarray) -> None:
    """Writes a picture, uint8 [H, W, C], as PNG."""
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(tf.io.encode_png(picture).numpy())
