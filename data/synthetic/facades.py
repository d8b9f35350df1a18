"""The built-in data set: label maps of made-up house fronts, and pictures painted from them."""

from data.preparation import tfds_writer
from data.synthetic.facade_labels import COLOURS, SIZE, draw_parts
from data.synthetic.facade_rendering import render_facade
from data.tfrecords.image_encoding import StoredFormat, encode_png

NAME = "synthetic_facades"
SPLIT_EXAMPLES = {"train": 400, "val": 40, "test": 60}
_COLOUR = StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))


def draw_facade(index):
    """Draws one pair; the same index always gives the same pair, another index another.

    Args:
      index: non-negative.

    Returns:
      (labels, picture), both uint8 [128, 128, 3]; the picture follows from the labels alone.
    """
    labels = COLOURS[draw_parts(index)]
    return labels, render_facade(labels)


def prepare_synthetic(data_dir):
    """Writes the data set, A = labels and B = picture, into data_dir unless it is there.

    Workers may do so at the same time; the first to finish provides it for all.
    """
    # Printed, not logged: it takes some seconds in which nothing else would be seen.
    print(f"drawing the data set {NAME!r} into {data_dir} (once)", flush=True)
    try:
        tfds_writer.write_dataset(
            name=NAME,
            data_dir=data_dir,
            features={side: _COLOUR.feature() for side in ("A", "B")},
            splits={split: lambda split=split: _examples(split) for split in SPLIT_EXAMPLES},
            metadata=_metadata,
            examples_per_shard=SPLIT_EXAMPLES,
        )
    except tfds_writer.AlreadyPreparedError:
        print(f"{NAME!r} is in {data_dir}", flush=True)


def _metadata():
    return {f"smallest_{side}": {"pixels": SIZE, "name": "facade_0000"} for side in ("height", "width")}


def _examples(split):
    """Iterates over the examples of a split; the indices of the splits follow one another."""
    names = list(SPLIT_EXAMPLES)
    first = sum(SPLIT_EXAMPLES[name] for name in names[: names.index(split)])
    for index in range(first, first + SPLIT_EXAMPLES[split]):
        labels, picture = draw_facade(index)
        yield {"name": f"facade_{index:04d}", "A": encode_png(labels), "B": encode_png(picture)}
