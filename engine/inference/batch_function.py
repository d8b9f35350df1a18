"""A network's function of a batch, traced for few sizes and run on all replicas."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from engine.distribution.devices import Devices
from engine.graphs.tensor_memory import peak_bytes


class BatchFunction:
    """A function of batches whose rows do not depend on each other, shared out over the replicas.

    TensorFlow traces it for the first size of pictures, and once more for any other size.

    Args:
      function: takes tensors [B, ...], of which some may be None, the first being pictures [B, H, W, C];
        returns [B, H', W', C'].
      devices: whose replicas compute; None computes on TensorFlow's default device.
    """

    def __init__(self, function: Callable[..., tf.Tensor], *, devices: Devices | None = None) -> None:
        self._function = function
        # A TPU needs static shapes, and several workers would each need the same pictures.
        alone = devices is None or devices.is_multi_worker or devices.is_tpu or devices.replicas == 1
        self._strategy = None if alone or devices is None else devices.strategy
        self.replicas = 1 if self._strategy is None else self._strategy.num_replicas_in_sync
        self._first_size: tuple[int, ...] | None = None
        self._traced: dict[tuple, tf.types.experimental.GenericFunction] = {}

    def __call__(self, pictures: tf.Tensor, *others: tf.Tensor | None) -> tf.Tensor:
        """Computes a batch; each replica gets about as many rows."""
        rows = pictures.shape[0]
        missing = -rows % self.replicas
        given = [
            x if missing == 0 else _repeat_last_row(x, missing) for x in (pictures, *others) if x is not None
        ]
        return self._of(pictures, others)(*given)[:rows]

    def bytes_per_pixel(self, pictures: tf.TensorSpec, *others: tf.TensorSpec | None) -> float | None:
        """How much memory the tensors of a replica need for each pixel of a picture, about.

        Args:
          pictures: of a batch, of a known height and width.
          *others: likewise.

        Returns:
          Bytes; None of a loaded graph, which cannot be looked into.
        """
        height, width = pictures.shape[1:3]
        graph = self._of(pictures, others).get_concrete_function().graph
        if any("PartitionedCall" in operation.type for operation in graph.get_operations()):
            return None
        return peak_bytes(graph, in_place=False).total / (height * width)

    def _of(
        self, pictures: tf.Tensor, others: tuple[tf.Tensor | None, ...]
    ) -> tf.types.experimental.GenericFunction:
        """The function for the sizes of these features."""
        features = (pictures, *others)
        size = tuple(pictures.shape[1:3])
        self._first_size = self._first_size or size
        is_first = size == self._first_size
        key = (is_first, *(x is None for x in features))
        if key not in self._traced:
            specs = [_spec(x, is_sized=is_first) for x in features if x is not None]
            present = [x is not None for x in features]

            def function(*given: tf.Tensor) -> tf.Tensor:
                remaining = iter(given)
                return self._on_replicas(*(next(remaining) if there else None for there in present))

            self._traced[key] = tf.function(function, input_signature=specs, autograph=False)
        return self._traced[key]

    def _on_replicas(self, pictures: tf.Tensor, *others: tf.Tensor | None) -> tf.Tensor:
        if self._strategy is None:
            return self._function(pictures, *others)
        rows = tf.shape(pictures)[0] // self.replicas

        def on_replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group * rows
            own = (x if x is None else x[first : first + rows] for x in (pictures, *others))
            return self._function(*own)

        results = self._strategy.run(tf.autograph.experimental.do_not_convert(on_replica))
        return tf.concat(self._strategy.experimental_local_results(results), axis=0)


def _spec(x: tf.Tensor, *, is_sized: bool) -> tf.TensorSpec:
    """Of a feature for any batch; images of any size unless that is kept."""
    sizes = x.shape[1:]
    if x.shape.rank == 4 and not is_sized:
        sizes = [None, None, x.shape[3]]
    return tf.TensorSpec([None, *sizes], x.dtype)


def _repeat_last_row(x: tf.Tensor, times: int) -> tf.Tensor:
    return tf.concat([x, tf.repeat(x[-1:], times, axis=0)], axis=0)
