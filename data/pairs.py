"""Batches of paired images: what pix2pix and every other supervised translation trains on."""

import dataclasses
import functools
import os
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_datasets as tfds

from data import augment, decoding, imaging, reading, records, synthetic
from data.errors import DataError

HELD_OUT = "train_held_out"
_LARGEST_HELD_OUT = 100
_HELD_OUT_FRACTION = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedImages:
    """Pairs of images in a prepared data set, augmented and batched.

    The order of training examples is a pure function of (seed, epoch), their augmentation of (seed,
    epoch, example id): a stream opened at any position goes on as one opened at 0 would have.

    Attributes:
        dataset: name in `data_dir` (the latest version is taken), or "synthetic_facades", which is
            drawn on first use.
        data_dir: folder of the prepared data sets.
        load_size: side in pixels both images are resized to before cropping; 0 keeps their size.
        crop_size: side in pixels of the square cut out.
        direction: "AtoB" makes A the input and B the target, "BtoA" the other way round.
        flip: mirror half of the training pairs left and right.
        seed: seed of the order and of the augmentation.
        window_bytes: encoded bytes of the examples shuffled together, the bulk of the memory used.

    Raises:
        DataError: a setting cannot be used (at construction), or the data set is not there or does
            not fit the settings (when it is first looked at).
    """

    dataset: str
    data_dir: str = "datasets"
    load_size: int = 286
    crop_size: int = 256
    direction: str = "AtoB"
    flip: bool = True
    seed: int = 0
    window_bytes: int = 64 * 2**20

    def __post_init__(self):
        if self.crop_size < 1:
            raise DataError(f"crop_size = {self.crop_size}: must be at least 1 pixel.")
        if self.load_size < 0:
            raise DataError(f"load_size = {self.load_size}: must be 0 (no resizing) or more.")
        if 0 < self.load_size < self.crop_size:
            raise DataError(
                f"crop_size = {self.crop_size} is larger than load_size = {self.load_size}: a crop "
                "must fit into the resized image; raise load_size or lower crop_size."
            )
        if self.direction not in ("AtoB", "BtoA"):
            raise DataError(f"direction = {self.direction!r}: must be 'AtoB' or 'BtoA'.")
        if not 0 <= self.seed < 2**63:
            raise DataError(f"seed = {self.seed}: must be from 0 to 2**63 - 1.")
        if self.window_bytes < 1:
            raise DataError(f"window_bytes = {self.window_bytes}: must be at least 1.")

    @property
    def train_examples(self) -> int:
        """Examples in an epoch, without those held out for evaluation."""
        return self._parts["train"].examples

    @property
    def splits(self) -> dict[str, int]:
        """Examples of each split that `evaluation` takes."""
        return {name: part.examples for name, part in self._parts.items()}

    @property
    def evaluation_split(self) -> str:
        """The split to evaluate while training: "val", or the held-out end of "train"."""
        return "val" if "val" in self._parts else HELD_OUT

    @property
    def example_spec(self) -> dict[str, tf.TensorSpec]:
        """{"input", "target"}: `tf.TensorSpec` of one example, float32 [crop, crop, C]."""
        size = self.crop_size
        return {
            role: tf.TensorSpec([size, size, self._channels(side)], tf.float32, name=role)
            for role, side in self._sides.items()
        }

    def batches(
        self,
        *,
        position_examples: int,
        global_batch: int,
        rows: Sequence[int] | None = None,
    ) -> tf.data.Dataset:
        """Training batches for ever, from a position on.

        Args:
            position_examples: examples drawn since the start of the run.
            global_batch: examples a step; a batch may straddle two epochs.
            rows: the rows of every global batch to give, rising, and the only ones that are decoded;
                all when None.

        Returns:
            A `tf.data.Dataset` of {"input", "target": float32 [b, crop, crop, C] in [-1, 1], "id":
            int64 [b]}; an id is an example's index in the stored split.

        Raises:
            DataError: the data set cannot be used.
            ValueError: an argument is out of range.
        """
        kept = list(range(global_batch) if rows is None else rows)
        if position_examples < 0 or not kept or kept != sorted(set(kept) & set(range(global_batch))):
            raise ValueError(
                f"position_examples = {position_examples}, global_batch = {global_batch}, rows = "
                f"{rows}: need position_examples >= 0 and rising rows from 0 to global_batch - 1."
            )
        examples = reading.training_examples(
            records=self._parts["train"],
            seed=self.seed,
            window_bytes=self.window_bytes,
            position_examples=position_examples,
        )
        if len(kept) < global_batch:
            is_kept = tf.constant([row in set(kept) for row in range(global_batch)])
            examples = examples.enumerate().filter(lambda drawn, _: is_kept[drawn % global_batch])
            examples = examples.map(lambda _, example: example)
        return self._batched(examples, self._training_example, len(kept))

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """One pass over a split in storage order, without augmentation.

        Images are resized to crop_size x crop_size, or cropped in the middle if load_size is 0.

        Args:
            split: a key of `splits`.
            batch: examples a batch; the last one may be smaller.

        Returns:
            A finite data set of what `batches` gives, and "name": string [b].

        Raises:
            DataError: there is no such split, or the data set cannot be used.
        """
        if split not in self._parts:
            raise DataError(
                f"data set {self.dataset!r} in {self.data_dir} has no split {split!r}; choose one "
                f"of {', '.join(self._parts)}."
            )
        examples = reading.stored_examples(self._parts[split])
        return self._batched(examples, self._evaluation_example, batch)

    def check_records(self):
        """Reads all stored records; raises a `DataError` that names the first damaged file.

        TensorFlow's DataLossError names no file: call this when one was raised.
        """
        for part in self._opened.splits.values():
            reading.check_records(part)

    def _batched(self, examples, prepare, batch):
        options = tf.data.Options()
        options.deterministic = True
        # Each worker asks for its own rows; TensorFlow would shard by decoding all in every worker.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        examples = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        return examples.batch(batch).prefetch(1).with_options(options)

    def _training_example(self, example):
        images = self._decoded(decoding.parse_record(self._opened.features, example["record"]))
        if side := self.load_size:
            images = {k: augment.resize(x, height=side, width=side) for k, x in images.items()}
        seed = augment.example_seed(self.seed, example["epoch"], example["id"])
        cut = augment.random_crop_and_flip(
            tuple(images.values()), size=self.crop_size, flip=self.flip, seed=seed
        )
        images = dict(zip(images, map(imaging.to_signed, cut), strict=True))
        return images | {"id": example["id"]}

    def _evaluation_example(self, example):
        parsed = decoding.parse_record(self._opened.features, example["record"])
        images, size = self._decoded(parsed), self.crop_size
        for role, image in images.items():
            if self.load_size:
                image = augment.resize(image, height=size, width=size)
            else:
                image = augment.centre_crop(image, size=size)
            images[role] = imaging.to_signed(image)
        name = parsed["name"] if "name" in parsed else tf.strings.as_string(example["id"])
        return images | {"id": example["id"], "name": name}

    def _decoded(self, parsed):
        """{"input", "target"}: uint8 [H, W, C] of a parsed record."""
        if "pair" in parsed:
            both = decoding.decode_image(parsed["pair"], channels=self._channels("A"))
            half = tf.shape(both)[1] // 2
            images = {"A": both[:, :half], "B": both[:, half:]}
        else:
            images = {
                side: decoding.decode_image(parsed[side], channels=self._channels(side))
                for side in ("A", "B")
            }
        return {role: images[side] for role, side in self._sides.items()}

    @property
    def _sides(self):
        a_to_b = self.direction == "AtoB"
        return {"input": "A" if a_to_b else "B", "target": "B" if a_to_b else "A"}

    def _channels(self, side):
        features = self._opened.features
        return features["pair" if "pair" in features else side].shape[-1]

    @functools.cached_property
    def _opened(self):
        data_dir = os.path.expanduser(self.data_dir)
        if self.dataset == synthetic.NAME and not records.find_dataset(self.dataset, data_dir):
            synthetic.prepare_synthetic(data_dir)
        opened = records.open_dataset(self.dataset, data_dir)
        features = opened.features
        images = {k for k, v in features.items() if isinstance(v, tfds.features.Image)}
        if "pair" not in images and not {"A", "B"} <= images:
            raise DataError(
                f"{opened.directory}: holds no pairs (its features are {', '.join(features)}); "
                "prepare it with --layout=side_by_side or --layout=paired."
            )
        if "train" not in opened.splits:
            raise DataError(f"{opened.directory}: has no examples in a split named 'train'.")
        self._check_sizes(opened)
        return opened

    def _check_sizes(self, opened):
        """Refuses, at open, images that are too small to crop when they are not resized."""
        for side in () if self.load_size else ("height", "width"):
            smallest = opened.metadata.get(f"smallest_{side}")
            if smallest and smallest["pixels"] < self.crop_size:
                raise DataError(
                    f"{opened.directory}: crop_size = {self.crop_size} does not fit into "
                    f"{smallest['name']!r}, whose {side} is {smallest['pixels']}; lower crop_size, "
                    "or set load_size to resize the images."
                )

    @functools.cached_property
    def _parts(self):
        """The records of every split `evaluation` takes; "train" without what is held out."""
        parts = dict(self._opened.splits)
        if "val" in parts:
            return parts
        train = parts["train"]
        held_out = min(_LARGEST_HELD_OUT, max(1, int(train.examples * _HELD_OUT_FRACTION)))
        if held_out == train.examples:
            raise DataError(
                f"{self._opened.directory}: its only example would be held out for evaluation; add "
                "examples or a split 'val'."
            )
        kept = train.examples - held_out
        return parts | {
            "train": train.part(0, kept),
            HELD_OUT: train.part(kept, train.examples),
        }
