"""The parts of a stored data set that a run draws from: what it trains on, and what is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.tfrecords.prepared_dataset import PreparedDataset, Records, split_held_out

HELD_OUT = "train_held_out"


def split_parts(
    opened: PreparedDataset, names: Mapping[str, Sequence[str]], *, train_fraction: float, seed: int
) -> dict[str, list[tuple[Records, Records]]]:
    """Divides the stored splits of a data set.

    Args:
      opened: the data set.
      names: split -> for each stream of examples, its name in the data set.
      train_fraction: fraction of the training examples to train on.
      seed: of the choice of this fraction.

    Returns:
      Name of a split -> for each stream, (the stored split, the part of it that belongs to this split). The
      end of "train" is a split of its own if the data set holds it out for evaluation.
    """
    divided: dict[str, list[tuple[Records, Records]]] = {}
    for split, stored_names in names.items():
        stored = [opened.splits[name] for name in stored_names]
        if split != "train":
            divided[split] = list(zip(stored, stored, strict=True))
            continue
        train, held_out = stored, None
        if "val" not in names and opened.holds_out:
            ends = [
                split_held_out(records, split=name, where=opened.directory)
                for records, name in zip(stored, stored_names, strict=True)
            ]
            train, held_out = [kept for kept, _ in ends], [end for _, end in ends]
        parts = [records.fraction(train_fraction, seed) for records in train]
        divided[split] = list(zip(stored, parts, strict=True))
        if held_out is not None:
            divided[HELD_OUT] = list(zip(stored, held_out, strict=True))
    return divided
