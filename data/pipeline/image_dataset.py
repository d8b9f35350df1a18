"""What all image data sets share: settings, splits, batches from a position on."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import tensorflow as tf

from data import imaging
from data.augmentation.geometry import RandomResizedCrop
from data.errors import DataError
from data.pipeline import cropping, image_cache, normalisation
from data.pipeline.example_stream import ExampleStream, ImageSource
from data.roles import SIDE_MAP, SIDE_VECTOR
from data.supply import Supply
from data.synthetic import facades
from data.tfrecords import prepared_dataset
from data.tfrecords.prepared_dataset import PreparedDataset, Records

HELD_OUT = "train_held_out"
_SECOND_STREAM = 0x9E3779B97F4A7C15
"""Added to the seed for the second of two streams, which are shuffled and augmented apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images in a prepared data set, augmented and batched; its subclasses say what an example is.

    The order of training examples is a pure function of (seed, epoch), their augmentation of (seed,
    epoch, example id): a stream opened at any position goes on as one opened at 0 would have.

    Images are decoded, then resized to load_size, then cropped and mirrored, in the dtype they are
    stored in; then augmented as float32 in [0, 1]; networks get float32 in [-1, 1], the ends being
    those of the stored value range, or those of `colour_space`. The map of an example, if it has one, is
    moved as its images are, and keeps its values; its vector is given as it is stored.

    Attributes:
        dataset: name in `data_dir` (the latest version is taken), or "synthetic_facades", which is
            drawn on first use.
        data_dir: folder of the prepared data sets.
        load_size: pixels to which images are resized before cropping, one number for a square or
            (height, width); 0 keeps their size.
        crop_size: pixels cut out, likewise.
        resize: "resize" to exactly load_size, or "resize_with_pad", which keeps the aspect ratio and
            fills up with black; bicubic and antialiased, as Pillow does it.
        random_resized_crop: `RandomResizedCrop` to take in the place of load_size and a crop.
        flip: mirror half of the training examples left and right.
        augmentations: objects of `data.augmentation`, applied in this order when training.
        colour_space: what all images become at last, in training and in evaluation: one of
            `data.imaging.COLOUR_SPACES`, scaled to [-1, 1] as `data.imaging.rgb_to_space` says. Another than
            "rgb" needs images stored as RGB. The engine shows and measures RGB all the same.
        train_fraction: part of the training examples to train on; the same ones for the same seed, and
            a larger part contains the smaller ones.
        seed: of the order and the augmentation.
        supply: how records are read.

    Raises:
        DataError: a setting cannot be used (at construction), or the data set is not there or does
            not fit the settings (when it is first looked at).
    """

    dataset: str
    data_dir: str = "datasets"
    load_size: int | tuple[int, int] = 286
    crop_size: int | tuple[int, int] = 256
    resize: str = cropping.RESIZE
    random_resized_crop: RandomResizedCrop | None = None
    flip: bool = True
    augmentations: tuple[Callable, ...] = ()
    colour_space: str = "rgb"
    train_fraction: float = 1.0
    seed: int = 0
    supply: Supply = dataclasses.field(default_factory=Supply)

    def __post_init__(self):
        if not 0 <= self.seed < 2**63:
            raise DataError(f"seed = {self.seed}: must be from 0 to 2**63 - 1.")
        if not 0 < self.train_fraction <= 1:
            raise DataError(f"TRAIN_FRACTION = {self.train_fraction}: must be above 0 and at most 1.")
        if self.colour_space not in imaging.COLOUR_SPACES:
            raise DataError(
                f"colour_space = {self.colour_space!r}: not known; choose one of "
                f"{', '.join(imaging.COLOUR_SPACES)}."
            )
        _ = self._framing  # checks its settings

    @property
    def train_examples(self) -> int:
        """Examples in an epoch, without those held out for evaluation."""
        return self.splits["train"]

    @functools.cached_property
    def splits(self) -> dict[str, int]:
        """Examples of each split that `evaluation` takes."""
        return {
            split: max(stream.part.examples for stream in streams) for split, streams in self._streams.items()
        }

    @property
    def evaluation_split(self) -> str:
        """The split to evaluate while training: "val", or the held-out end of "train"."""
        return "val" if "val" in self.splits else HELD_OUT

    @property
    def example_spec(self) -> dict[str, tf.TensorSpec]:
        """{"input", "target", "side_map": `tf.TensorSpec` float32 [*crop_size, C], "side_vector": [K]}.

        Inputs may be smaller than targets; the last two are there only where the data set has them.
        """
        whole = self._framing.crop_size
        small = [side // self._input_downscale for side in whole]
        shapes = {
            role: [*(small if role == "input" else whole), side.channels]
            for stream in self._streams["train"]
            for role, side in stream.sides.items()
        }
        shapes = {role: shapes[role] for role in ("input", "target", SIDE_MAP) if role in shapes}
        if self._opened.side_vector_size:
            shapes[SIDE_VECTOR] = [self._opened.side_vector_size]
        return {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()}

    @property
    def side_classes(self) -> tuple[str, ...]:
        """Names of the classes for which the numbers of "side_vector" stand; empty if they do not."""
        return self._opened.side_classes

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
            A `tf.data.Dataset` of {"input", "target": float32 [b, *crop_size, C] in [-1, 1], of
            `colour_space`, "id": int64 [b]}, and what else `example_spec` has; an id is an example's index in
            the stored split.

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
        is_kept = [row in set(kept) for row in range(global_batch)]
        streams = self._streams["train"]
        examples = _joined(
            [s.training(position_examples=position_examples, is_kept=is_kept) for s in streams]
        )
        batches = examples.batch(len(kept))
        if self.supply.service:
            batches = batches.apply(
                tf.data.experimental.service.distribute(
                    processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                    service=self.supply.service,
                    # Processes that train together draw from one job, others each from its own.
                    job_name=None if all(is_kept) else f"{self.dataset} {self.seed} {position_examples}",
                )
            )
        return self._delivered(batches, in_unit_range=bool(self.augmentations))

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """One pass over a split in storage order, without augmentation.

        Images are resized to crop_size, or cropped in the middle if load_size is 0.

        Args:
            split: a key of `splits`.
            batch: examples a batch; the last one may be smaller.

        Returns:
            A finite data set of what `batches` gives, and "name": string [b].

        Raises:
            DataError: there is no such split, or the data set cannot be used.
        """
        if split not in self._streams:
            raise DataError(
                f"data set {self.dataset!r} in {self.data_dir} has no split {split!r}; choose one "
                f"of {', '.join(self._streams)}."
            )
        streams = [stream.evaluation() for stream in self._streams[split]]
        if len(streams) > 1:  # where one side has fewer examples than the other, it begins again
            streams = [stream.repeat() for stream in streams]
        examples = _joined(streams).take(self.splits[split])
        in_unit_range = self._augments_evaluation and bool(self.augmentations)
        return self._delivered(examples.batch(batch), in_unit_range=in_unit_range)

    def check_records(self, split: str, position_examples: int | None = None) -> None:
        """Reads records of a split until one cannot be used; those drawn next from a position on first.

        Raises:
            DataError: names the first that cannot be used: its file, its index there, and the reason.
        """
        for stream in self._streams[split]:
            stream.check_records(position_examples)

    def notes(self) -> list[str]:
        """What reading has to tell so far: whether images are cached, which records were passed over."""
        return [note for stream in self._streams["train"] for note in stream.notes]

    is_paired: ClassVar[bool] = True
    """Whether a target is what its input should become."""

    _augments_evaluation: ClassVar[bool] = False
    """Whether the augmentations belong to the task and not only to training."""

    _input_downscale: ClassVar[int] = 1
    """How many times smaller inputs are than targets, along each side."""

    def _sides(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        """For each stream of an example: role ("input", "target") -> where that image lies."""
        raise NotImplementedError(f"{type(self).__name__} does not say what an example is")

    def _split_names(self, opened: PreparedDataset) -> Mapping[str, tuple[str, ...]]:
        """Split -> name in the data set of each stream."""
        return {split: (split,) for split in opened.splits}

    @functools.cached_property
    def _framing(self) -> cropping.Framing:
        return cropping.framing_of(
            load_size=self.load_size,
            crop_size=self.crop_size,
            resize=self.resize,
            flip=self.flip,
            random_resized_crop=self.random_resized_crop,
        )

    def _delivered(self, batches, *, in_unit_range):
        ranges = {
            role: (0.0, 1.0) if in_unit_range else stream.value_range(role)
            for stream in self._streams["train"]
            for role in stream.sides
        }
        batches = normalisation.delivered(batches, ranges=ranges, colour_space=self.colour_space)
        return batches.with_options(self.supply.options)

    @functools.cached_property
    def _opened(self) -> PreparedDataset:
        data_dir = os.path.expanduser(self.data_dir)
        if self.dataset == facades.NAME and not prepared_dataset.find_dataset(self.dataset, data_dir):
            facades.prepare_synthetic(data_dir)
        return prepared_dataset.open_dataset(self.dataset, data_dir)

    @functools.cached_property
    def _streams(self) -> dict[str, tuple[ExampleStream, ...]]:
        """The streams of every split; "train" without what is held out."""
        opened, names = self._opened, self._split_names(self._opened)
        sides = self._sides(opened)
        if SIDE_MAP in opened.features:
            beside = ImageSource(feature=SIDE_MAP, channels=opened.features[SIDE_MAP].shape[-1])
            sides = tuple({**of_stream, SIDE_MAP: beside} for of_stream in sides)
        if "train" not in names:
            raise DataError(f"{opened.directory}: has no examples in a split named 'train'.")
        self._framing.check_sizes(opened.metadata, where=opened.directory)
        normalisation.check_channels(sides, self.colour_space, where=opened.directory)
        streams = {}
        for split, of_split in names.items():
            whole = [opened.splits[name] for name in of_split]
            parts = {split: whole}
            if split == "train":
                if "val" not in names:
                    train, held_out = zip(
                        *(prepared_dataset.without_held_out(of_side, opened.directory) for of_side in whole),
                        strict=True,
                    )
                    parts = {split: train, HELD_OUT: held_out}
                parts[split] = [part.fraction(self.train_fraction, self.seed) for part in parts[split]]
            for name, drawn in parts.items():
                streams[name] = tuple(
                    self._stream(number, whole[number], part, sides[number])
                    for number, part in enumerate(drawn)
                )
        return streams

    def _stream(
        self, number: int, whole: Records, part: Records, sides: Mapping[str, ImageSource]
    ) -> ExampleStream:
        return ExampleStream(
            features=self._opened.features,
            split=whole,
            part=part,
            sides=sides,
            framing=self._framing,
            augmentations=tuple(self.augmentations),
            seed=(self.seed + number * _SECOND_STREAM) % 2**63,
            supply=self.supply,
            cache_path=lambda: image_cache.cache_path(os.path.expanduser(self.data_dir), self.dataset, part),
            augments_evaluation=self._augments_evaluation,
            input_downscale=self._input_downscale,
        )


def _joined(streams: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """One example of each stream together; id and name are those of the first."""
    if len(streams) == 1:
        return streams[0]
    return tf.data.Dataset.zip(*streams).map(lambda first, second: second | first)
