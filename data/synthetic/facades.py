"""The built-in data set: label maps of drawn house fronts, and images rendered from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from data import gfile
from data.preparation import tfds_writer
from data.synthetic.facade_labels import COLOURS, SIZE, draw_parts
from data.synthetic.facade_rendering import render_facade
from data.tfrecords.image_encoding import StoredFormat, encode_png

NAME = "synthetic_facades"
SPLIT_EXAMPLES = {"train": 400, "val": 40, "test": 60}
_COLOUR = StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))


def draw_facade(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the pair of an index; it is always the same.

    Args:
      index: non-negative.

    Returns:
      (labels, image), both uint8 [128, 128, 3]; the labels determine the image.
    """
    labels = COLOURS[draw_parts(index)]
    return labels, render_facade(labels)


def prepare_synthetic(data_dir: gfile.Path) -> None:
    """Writes the data set, A = labels and B = image, into data_dir unless it exists.

    Several workers may call this at the same time; all use the data set of the first to finish.
    """
    # Printed, not logged: it takes seconds, in which the program would seem to hang.
    print(f"generating the data set {NAME!r} into {data_dir} (once)", flush=True)
    try:
        tfds_writer.write_dataset(
            name=NAME,
            data_dir=data_dir,
            features={feature: _COLOUR.feature() for feature in ("A", "B")},
            splits={split: partial(_examples, split) for split in SPLIT_EXAMPLES},
            metadata=_metadata,
            examples_per_shard=SPLIT_EXAMPLES,
        )
    except tfds_writer.AlreadyPreparedError:
        print(f"{NAME!r} is in {data_dir}", flush=True)


def _metadata() -> dict[str, Any]:
    return {f"smallest_{edge}": {"pixels": SIZE, "name": "facade_0000"} for edge in ("height", "width")}


def _examples(split: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a split; its indices follow those of the split before."""
    names = list(SPLIT_EXAMPLES)
    first = sum(SPLIT_EXAMPLES[name] for name in names[: names.index(split)])
    for index in range(first, first + SPLIT_EXAMPLES[split]):
        labels, image = draw_facade(index)
        yield {"name": f"facade_{index:04d}", "A": encode_png(labels), "B": encode_png(image)}
