"""The base class of all image data sets: settings, splits, and batches from any position."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from data import imaging
from data.augmentation.compose import not_geometric
from data.augmentation.geometry import RandomResizedCrop
from data.description import DataDescription
from data.errors import DataError
from data.pipeline import cropping, image_cache, normalisation
from data.pipeline.example_decoder import ImageSource
from data.pipeline.example_stream import ExampleStream
from data.pipeline.split_parts import HELD_OUT, split_parts
from data.roles import INPUT, SIDE_MAP, SIDE_VECTOR, TARGET
from data.supply import FAST, NO_CACHE, Supply
from data.synthetic import facades
from data.tfrecords import fingerprint, prepared_dataset
from data.tfrecords.prepared_dataset import PreparedDataset, Records

_SECOND_STREAM = 0x9E3779B97F4A7C15
"""Added to the seed of the second of two streams, which are shuffled and augmented independently."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images of a prepared data set, augmented and batched. Subclasses define what an example is.

    The order of training examples is a pure function of (seed, epoch), their augmentation of (seed, epoch,
    example id). So a stream opened at any position continues as one opened at 0 would.

    Images are decoded, resized to load_size, cropped and mirrored in their stored dtype; then augmented as
    float32 in [0, 1]. Networks get float32 in [-1, 1]: the ends are those of the stored value range, or of
    `colour_space`. A side map is cropped and moved with the images of its example but keeps its values. A
    side vector stays as it is stored. Labels, whose values are classes, are never interpolated: resizing and
    rotation take the nearest pixel, and only geometric augmentations apply. A map of classes is one-hot.

    Attributes:
      dataset: name in `data_dir` (the latest version is used), or "synthetic_facades", which is made on
        first use.
      data_dir: folder of the prepared data sets.
      load_size: pixels to which images are resized before cropping, one number for a square or (height,
        width); 0 keeps their size.
      crop_size: pixels of the crop, one number or (height, width).
      resize: "resize" to exactly load_size, or "resize_with_pad", which keeps the aspect ratio and pads with
        black; bicubic and antialiased, as in Pillow (see `data.pipeline.resizing.resize_window`).
      random_resized_crop: a `RandomResizedCrop` to use instead of load_size and a crop.
      random_crop_epochs: how many epochs have random crops; later ones have the whole image, resized to
        crop_size and mirrored at random, as in CUT (which stops when the learning rate begins to fall). A
        text such as "50%" is a part of the run, which the engine converts. None is all. No effect if
        load_size is 0.
      flip: mirror half of the training examples left and right.
      augmentations: objects of `data.augmentation`, applied in this order in training.
      colour_space: the colour space of all images in training and evaluation, one of
        `data.imaging.COLOUR_SPACES`, scaled to [-1, 1] as by `data.imaging.rgb_to_space`. All but "rgb" need
        images stored as RGB. The engine shows and measures RGB in any case.
      train_fraction: fraction of the training examples to train on; the same ones for the same seed, and a
        larger fraction contains the smaller ones.
      seed: of the order and the augmentation.
      supply: how records are read.

    Raises:
      DataError: a setting cannot be used (at construction), or the data set is missing or does not fit the
        settings (on first use).
    """

    dataset: str
    data_dir: str = "datasets"
    load_size: int | tuple[int, int] = 286
    crop_size: int | tuple[int, int] = 256
    resize: str = cropping.RESIZE
    random_resized_crop: RandomResizedCrop | None = None
    random_crop_epochs: int | str | None = None
    flip: bool = True
    augmentations: tuple[Callable, ...] = ()
    colour_space: str = "rgb"
    train_fraction: float = 1.0
    seed: int = 0
    supply: Supply = dataclasses.field(default_factory=Supply)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise DataError(f"seed = {self.seed}: must be from 0 to 2**63 - 1")
        if not 0 < self.train_fraction <= 1:
            raise DataError(f"TRAIN_FRACTION = {self.train_fraction}: must be greater than 0 and at most 1")
        if self.colour_space not in imaging.COLOUR_SPACES:
            raise DataError(
                f"colour_space = {self.colour_space!r}: not known; choose one of "
                f"{', '.join(imaging.COLOUR_SPACES)}"
            )
        _ = self._resize_and_crop  # checks its settings
        self._check_resizing()

    @property
    def train_examples(self) -> int:
        """Number of examples in an epoch, without those held out for evaluation."""
        return self.splits["train"]

    @functools.cached_property
    def splits(self) -> dict[str, int]:
        """Name of each split that `evaluation` takes -> its number of examples."""
        return {
            split: max(stream.part.examples for stream in streams) for split, streams in self._streams.items()
        }

    @property
    def evaluation_split(self) -> str:
        """The split to evaluate while training: "val", or the held-out end of "train".

        It is "train" itself if the data set was prepared to hold out nothing.
        """
        return next(split for split in ("val", HELD_OUT, "train") if split in self.splits)

    @property
    def example_spec(self) -> dict[str, tf.TensorSpec]:
        """{"input", "target", "side_map": `tf.TensorSpec` float32 [*crop_size, C], "side_vector": [K]}.

        Inputs may be smaller than targets; a target may be a vector [K]. The last two exist only if the data
        set has them.
        """
        crop_size = self._resize_and_crop.crop_size
        input_size = [pixels // self._input_downscale for pixels in crop_size]
        shapes = {
            role: [*(input_size if role == INPUT else crop_size), source.channels]
            for stream in self._streams["train"]
            for role, source in stream.sources.items()
        }
        for role, one_hot in self.one_hot.items():
            shapes[role][-1] = len(one_hot.classes)
        for role, feature in self._vectors(self._opened).items():
            shapes[role] = [self._opened.vector_size(feature)]
        return {
            role: tf.TensorSpec(shapes[role], tf.float32, name=role)
            for role in (INPUT, TARGET, SIDE_MAP, SIDE_VECTOR)
            if role in shapes
        }

    @property
    def label_roles(self) -> tuple[str, ...]:
        """The roles of images whose values are classes: "input", "target", "side_map"."""
        sources = (item for stream in self._streams["train"] for item in stream.sources.items())
        return tuple(role for role, source in sources if source.is_labels)

    @functools.cached_property
    def one_hot(self) -> dict[str, imaging.OneHot]:
        """The classes of those labels that batches have one-hot, by their role."""
        return {
            role: imaging.OneHot(classes=source.classes, value_range=stream.value_range(role))
            for stream in self._streams["train"]
            for role, source in stream.sources.items()
            if source.classes and role in self._one_hot_roles
        }

    @property
    def side_classes(self) -> tuple[str, ...]:
        """Names of the classes that "side_vector" encodes; empty if it does not encode classes."""
        return self._opened.side_classes

    @property
    def description(self) -> DataDescription:
        """What a run has to know of the data set to be used without it."""
        return DataDescription.of(
            self,
            dataset=self.dataset,
            images={
                role: stream.image_format(role)
                for stream in self._streams["train"]
                for role in stream.sources
            },
            load_size=self._resize_and_crop.load_size,
            crop_size=self._resize_and_crop.crop_size,
            resize=self.resize,
            direction=getattr(self, "direction", None),
            target_kind=getattr(self, "target_kind", None),
            target_names=getattr(self, "target_names", ()),
            side_classes=self.side_classes,
            label_roles=self.label_roles,
            one_hot=self.one_hot,
        )

    # None of its functions has Python control flow on tensors; converting them takes half a second.
    @tf.autograph.experimental.do_not_convert
    def batches(
        self,
        *,
        position_examples: int,
        global_batch: int,
        rows: Sequence[int] | None = None,
    ) -> tf.data.Dataset:
        """Yields training batches forever, from a position.

        Args:
          position_examples: examples drawn since the start of the run.
          global_batch: examples per step; a batch may contain examples of two epochs.
          rows: indices of the rows of every global batch to yield, rising; only these are decoded. None
            yields all.

        Returns:
          An infinite data set of {"input", "target": float32 [b, *crop_size, C] in [-1, 1], in
          `colour_space`; "id": int64 [b]}, and the vectors and side information of `example_spec`. An id is
          an example's index in the stored split.

        Raises:
          DataError: the data set cannot be used.
          ValueError: an argument is out of range.
        """
        if isinstance(self.random_crop_epochs, str):
            raise DataError(
                f"random_crop_epochs = {self.random_crop_epochs!r}: is a part of a run, and there is no run; "
                "give a number of epochs"
            )
        kept = list(range(global_batch) if rows is None else rows)
        if position_examples < 0 or not kept or kept != sorted(set(kept) & set(range(global_batch))):
            raise ValueError(
                f"position_examples = {position_examples}, global_batch = {global_batch}, rows = "
                f"{rows}: must be position_examples >= 0 and rising rows from 0 to global_batch - 1"
            )
        is_kept = [row in set(kept) for row in range(global_batch)]
        streams = self._streams["train"]
        examples = _zip([s.training(position_examples=position_examples, is_kept=is_kept) for s in streams])
        batches = examples.batch(len(kept))
        if self.supply.service:
            batches = batches.apply(
                tf.data.experimental.service.distribute(
                    processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                    service=self.supply.service,
                    # Processes with all rows draw from one job each; workers of one run share a job.
                    job_name=None if all(is_kept) else f"{self.dataset} {self.seed} {position_examples}",
                )
            )
        return self._normalised(batches, in_unit_range=bool(self.augmentations))

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """Yields every example of a split once, in storage order, without augmentation.

        Images are resized to crop_size, or centre-cropped if load_size is 0.

        Args:
          split: a key of `splits`.
          batch: examples per batch; the last one may be smaller.

        Returns:
          A finite data set of what `batches` yields, and "name": string [b].

        Raises:
          DataError: the split does not exist, or the data set cannot be used.
        """
        if split not in self._streams:
            raise DataError(
                f"data set {self.dataset!r} in {self.data_dir}: has no split {split!r}; choose one "
                f"of {', '.join(self._streams)}"
            )
        streams = [stream.evaluation() for stream in self._streams[split]]
        if len(streams) > 1:  # a domain with fewer examples than the other begins again
            streams = [stream.repeat() for stream in streams]
        examples = _zip(streams).take(self.splits[split])
        in_unit_range = self._augments_evaluation and bool(self.augmentations)
        return self._normalised(examples.batch(batch), in_unit_range=in_unit_range)

    def role_examples(self, split: str) -> dict[str, int]:
        """How many images of each role a split has. Of unpaired domains, the smaller one begins again.

        Args:
          split: a key of `splits`.
        """
        return {role: stream.part.examples for stream in self._streams[split] for role in stream.sources}

    def check_records(self, split: str, position_examples: int | None = None) -> None:
        """Reads records of a split until one cannot be used.

        Args:
          split: a key of `splits`.
          position_examples: read the records drawn next from this position first; None reads in storage
            order.

        Raises:
          DataError: a record cannot be used: names its file, its index there, and the reason.
        """
        for stream in self._streams[split]:
            stream.check_records(position_examples)

    def notes(self) -> list[str]:
        """Returns lines for the log: what is cached or skipped, and which augmentations pass over labels."""
        notes = [note for stream in self._streams["train"] for note in stream.notes]
        roles = self.label_roles
        if roles and (names := not_geometric(self.augmentations)):
            notes.insert(0, f"{', '.join(names)}: without effect on {' and '.join(roles)}, which are classes")
        return notes

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the contents of the data set; see `engine.training_data.HasFingerprint`."""
        return fingerprint.fingerprint(self._opened)

    is_paired: ClassVar[bool] = True
    """Whether the target of an example is the desired output for its input."""

    _augments_evaluation: ClassVar[bool] = False
    """Whether the augmentations are part of the task, and so apply in evaluation too."""

    @property
    def _one_hot_roles(self) -> tuple[str, ...]:
        """The roles of images that are one-hot if they are labels."""
        return (SIDE_MAP,)

    @property
    def _input_downscale(self) -> int:
        """How many times smaller than targets inputs are, in height and width."""
        return 1

    def _sources(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        """For each stream of an example: role ("input", "target") -> `ImageSource`."""
        raise NotImplementedError(f"{type(self).__name__} must define _sources")

    def _vectors(self, opened: PreparedDataset) -> Mapping[str, str]:
        """Role ("target", "side_vector") -> feature of each vector of an example."""
        return {SIDE_VECTOR: SIDE_VECTOR} if SIDE_VECTOR in opened.features else {}

    def _split_names(self, opened: PreparedDataset) -> Mapping[str, tuple[str, ...]]:
        """Split -> for each stream, its name in the data set."""
        return {split: (split,) for split in opened.splits}

    @functools.cached_property
    def _resize_and_crop(self) -> cropping.ResizeAndCrop:
        return cropping.make_resize_and_crop(
            load_size=self.load_size,
            crop_size=self.crop_size,
            resize=self.resize,
            flip=self.flip,
            random_resized_crop=self.random_resized_crop,
            random_crop_epochs=self._crop_epochs,
        )

    @property
    def _crop_epochs(self) -> int | None:
        """A part of the run is unknown here; `batches` refuses it."""
        return None if isinstance(self.random_crop_epochs, str) else self.random_crop_epochs

    def _check_resizing(self) -> None:
        """Raises DataError if images cannot be resized before the random part is drawn."""
        if self.supply.resizing != FAST:
            return
        reason = ""
        if self.load_size == 0:
            reason = "needs a load_size, which is 0; set one, or 'exact'"
        elif self.random_resized_crop is not None:
            reason = "a random_resized_crop resizes another part each time; drop it, or set 'exact'"
        elif self.random_crop_epochs is not None and self.supply.cache != NO_CACHE:
            reason = (
                "random_crop_epochs needs two sizes, of which a cache would hold one; set cache = 'none', or "
                "'exact'"
            )
        if reason:
            raise DataError(f"resizing = {FAST!r}: {reason}")

    def _normalised(self, batches: tf.data.Dataset, *, in_unit_range: bool) -> tf.data.Dataset:
        ranges = {
            role: (0.0, 1.0) if in_unit_range else stream.value_range(role)
            for stream in self._streams["train"]
            for role in stream.sources
        }
        batches = normalisation.normalise(
            batches, ranges=ranges, colour_space=self.colour_space, one_hot=self.one_hot
        )
        return batches.with_options(self.supply.options)

    @functools.cached_property
    def _opened(self) -> PreparedDataset:
        data_dir = os.path.expanduser(self.data_dir)
        if self.dataset == facades.NAME and not prepared_dataset.find_dataset(self.dataset, data_dir):
            facades.prepare_synthetic(data_dir)
        return prepared_dataset.open_dataset(self.dataset, data_dir)

    @functools.cached_property
    def _streams(self) -> dict[str, tuple[ExampleStream, ...]]:
        """The streams of every split; "train" without the examples held out for evaluation."""
        opened, names = self._opened, self._split_names(self._opened)
        sources = self._sources_with_map(opened)
        if "train" not in names:
            raise DataError(
                f"{opened.directory}: has no examples in a split named 'train'; prepare the data set with one"
            )
        self._resize_and_crop.check_sizes(opened.metadata, where=opened.directory)
        normalisation.check_channels(sources, self.colour_space, where=opened.directory)
        streams = {}
        parts = split_parts(opened, names, train_fraction=self.train_fraction, seed=self.seed)
        for name, of_streams in parts.items():
            largest = max(part.examples for _, part in of_streams)
            streams[name] = tuple(
                self._stream(number, stored, part, of_stream, epoch_examples=largest)
                for number, ((stored, part), of_stream) in enumerate(zip(of_streams, sources, strict=True))
            )
        return streams

    def _sources_with_map(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        """The sources of each stream, with that of the side map if the data set has one."""
        sources = self._sources(opened)
        if SIDE_MAP not in opened.features:
            return sources
        side_map = ImageSource(
            feature=SIDE_MAP,
            channels=opened.features[SIDE_MAP].shape[-1],
            classes=opened.labels.get(SIDE_MAP),
            alpha=opened.has_alpha(SIDE_MAP),
        )
        return tuple({**of_stream, SIDE_MAP: side_map} for of_stream in sources)

    def _stream(
        self,
        number: int,
        split: Records,
        part: Records,
        sources: Mapping[str, ImageSource],
        *,
        epoch_examples: int,
    ) -> ExampleStream:
        """Stream `number` of an example: the part of a stored split that it draws from."""
        resize_and_crop = self._resize_and_crop
        if (crop_epochs := self._crop_epochs) is not None:
            # A smaller domain has shorter epochs of its own; the last one with crops is not broken off.
            own_epochs = -(-crop_epochs * epoch_examples // max(1, part.examples))
            resize_and_crop = dataclasses.replace(resize_and_crop, random_crop_epochs=own_epochs)
        return ExampleStream(
            features=self._opened.features,
            split=split,
            part=part,
            sources=sources,
            vectors=self._vectors(self._opened),
            resize_and_crop=resize_and_crop,
            augmentations=tuple(self.augmentations),
            seed=(self.seed + number * _SECOND_STREAM) % 2**63,
            supply=self.supply,
            cache_path=lambda contents: image_cache.cache_path(
                os.path.expanduser(self.data_dir), self.dataset, part, contents=contents
            ),
            augments_evaluation=self._augments_evaluation,
            input_downscale=self._input_downscale,
        )


def _zip(streams: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """Joins one example of each stream into one; id and name are those of the first."""
    if len(streams) == 1:
        return streams[0]
    return tf.data.Dataset.zip(*streams).map(lambda first, second: second | first)
