"""A stream of examples: read in order, decoded, cropped, augmented."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf
import tensorflow_datasets as tfds

from data.augmentation.compose import augment
from data.description import ImageFormat
from data.errors import DataError
from data.pipeline import damaged_records, image_cache, record_reader, resizing
from data.pipeline.cropping import ResizeAndCrop, example_seed
from data.pipeline.example_decoder import ExampleDecoder, ImageSource
from data.pipeline.example_order import ExampleOrder
from data.pipeline.fast_resizing import FastDecoder
from data.roles import INPUT
from data.supply import FAST, NO_CACHE, SKIP, Supply
from data.tfrecords.prepared_dataset import Records

_EVALUATION_EPOCH = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleStream:
    """Examples of a split, or of a part of one.

    Attributes:
      features: the `tfds` features of the records.
      split: all records of the split.
      part: those of them that are drawn.
      sources: role ("input", "target", "side_map") -> `ImageSource`; two roles may have the same image.
      vectors: role ("target", "side_vector") -> feature, as of `ExampleDecoder`.
      resize_and_crop: from the stored images to images of one size.
      augmentations: applied in training, in this order.
      seed: of the order and of everything random in an example.
      supply: how records are read.
      cache_path: function of `ExampleDecoder.contents` that returns the file for a cache of this stream on
        disk.
      augments_evaluation: apply the augmentations in evaluation too, the same to an example every time.
      input_downscale: how many times smaller than targets the inputs become, last of all.
    """

    features: tfds.features.FeaturesDict
    split: Records
    part: Records
    sources: Mapping[str, ImageSource]
    vectors: Mapping[str, str]
    resize_and_crop: ResizeAndCrop
    augmentations: tuple[Callable, ...]
    seed: int
    supply: Supply
    cache_path: Callable[[object], str]
    augments_evaluation: bool = False
    input_downscale: int = 1

    @functools.cached_property
    def order(self) -> ExampleOrder:
        """The order of training."""
        return record_reader.example_order(
            records=self.part, seed=self.seed, window_bytes=self.supply.window_bytes
        )

    def training(self, *, position_examples: int, is_kept: Sequence[bool]) -> tf.data.Dataset:
        """Yields training examples forever, from a position.

        Args:
          position_examples: examples drawn since the start of the run.
          is_kept: bool [global batch]; the rows of every batch to yield. Only these are decoded.

        Returns:
          A data set of {role: [*crop_size, C] in the stored dtype, or float32 in [0, 1] if there are
          augmentations; "id": int64 []; and role: float32 [K] of each vector}.
        """
        if self.supply.service:
            read = record_reader.training_windows
        elif self._reads_by_id:
            read = record_reader.training_ids
        else:
            read = record_reader.training_examples
        examples = read(records=self.part, order=self.order, position_examples=position_examples)
        if not all(is_kept):
            rows = tf.constant(is_kept)
            examples = examples.enumerate().filter(lambda number, _: rows[number % len(is_kept)])
            examples = examples.map(lambda _, example: example)
        return examples.map(self._traced_training_example, num_parallel_calls=tf.data.AUTOTUNE)

    def evaluation(self) -> tf.data.Dataset:
        """Yields every example once, in storage order, with nothing random.

        Returns:
          A finite data set of what `training` yields, and "name": string []. Damaged records are left out
          if training skips them.
        """
        if self.supply.on_bad_record == SKIP:
            examples = tf.data.Dataset.range(*self._tolerant_reader.ids)

            def read_and_prepare(example_id: tf.Tensor) -> dict[str, tf.Tensor]:
                record = self._tolerant_reader.record(example_id)
                return self._evaluation_example({"record": record, "id": example_id})

            examples = examples.map(read_and_prepare, num_parallel_calls=tf.data.AUTOTUNE)
            return examples.ignore_errors(log_warning=True)
        examples = record_reader.stored_examples(self.part)
        return examples.map(self._traced_evaluation_example, num_parallel_calls=tf.data.AUTOTUNE)

    def value_range(self, role: str) -> tuple[float, float]:
        """Returns (lowest, highest) value that an image of a role can have as stored."""
        return self._decoder.value_range(role)

    def image_format(self, role: str) -> ImageFormat:
        """Returns how the images of a role are stored."""
        return self._decoder.image_format(role)

    @property
    def notes(self) -> list[str]:
        """Lines for the log: whether images are cached, and which damaged records were skipped."""
        cache = [] if self.supply.cache == NO_CACHE else [self._cache[1]]
        return cache + [f"{damaged}: the next record is used instead" for damaged in self._damaged()]

    def check_records(self, position_examples: int | None = None) -> None:
        """Reads records until one cannot be used; first those drawn next from a position.

        If damaged records are skipped, checks instead that there are not too many of them.

        Args:
          position_examples: examples drawn since the start of the run; None reads in storage order.

        Raises:
          DataError: a record cannot be used: names its file, its index there, and the reason; or too many
            are damaged.
        """
        if self.supply.on_bad_record == SKIP:
            self._check_damaged_share()
            return
        shards = dict.fromkeys(self.part.shards)
        if position_examples is not None:
            next_shards = record_reader.shards_from(self.part, self.order, position_examples)
            shards = dict.fromkeys(next_shards) | shards
        for shard in shards:
            if found := damaged_records.first_damaged(shard, self._decoder.decode):
                index, reason = found
                raise DataError(
                    f"{shard.path}: record {index} is damaged ({reason}); prepare the data set again, or "
                    "skip damaged records: --gin_param='supply.Supply.on_bad_record = \"skip\"'"
                )

    def _check_damaged_share(self) -> None:
        damaged = self._damaged()
        if len(damaged) > self._tolerant_reader.max_damaged:
            raise DataError(
                f"{damaged[0]}, and {len(damaged) - 1} more of {self.part.examples} examples, which is more "
                f"than largest_bad_share = {self.supply.largest_bad_share}; prepare the data set again"
            )

    def _damaged(self) -> list[str]:
        if self.supply.on_bad_record != SKIP:
            return []
        return [f"{path}: record {index} is damaged" for path, index in self._tolerant_reader.damaged()]

    @property
    def _reads_by_id(self) -> bool:
        # The cache comes first: it must be filled before an example is traced.
        return self._cache[0] is not None or self.supply.on_bad_record == SKIP

    # Traced once, although a stream is opened again at every batch boundary and for every evaluation.
    @functools.cached_property
    def _traced_training_example(self) -> Callable[..., dict[str, tf.Tensor]]:
        return tf.function(self._training_example, autograph=False)

    @functools.cached_property
    def _traced_evaluation_example(self) -> Callable[..., dict[str, tf.Tensor]]:
        return tf.function(self._evaluation_example, autograph=False)

    def _training_example(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        example_id = example["id"]
        place = {"epoch": example["epoch"], "position": example["position"]}
        if "record" in example:
            return self._randomised(self._decode(example["record"], place["epoch"]), example_id, **place)
        cache = self._cache[0]
        if cache is not None:
            return self._randomised(cache.images(example_id), example_id, **place)
        return self._tolerant_reader.read(
            example_id,
            lambda record, found: self._randomised(self._decode(record, place["epoch"]), found, **place),
        )

    def _decode(
        self, record: tf.Tensor, epoch: int | tf.Tensor = 0, *, for_cache: bool = False
    ) -> tuple[tf.Tensor, ...]:
        """Decodes a record for training: what `ExampleDecoder.decode` returns."""
        if self.supply.resizing != FAST:
            return self._decoder.decode(record)
        fast = FastDecoder(decoder=self._decoder, resize_and_crop=self.resize_and_crop)
        return fast.decode(record, epoch=epoch, for_cache=for_cache)

    def _randomised(
        self,
        decoded: tuple[tf.Tensor, ...],
        example_id: tf.Tensor,
        *,
        epoch: tf.Tensor,
        position: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Crops and augments an example: {role: image or vector, "id"}."""
        seed = example_seed(self.seed, epoch, example_id)
        images, vectors = self._decoder.split(decoded)
        images = self.resize_and_crop.training(
            images, seed, padding=self._decoder.padding, epoch=epoch, labels=self._decoder.labels
        )
        augmented = self._augmented(self._decoder.by_role(images), seed, position)
        return self._with_small_input(augmented) | vectors | {"id": example_id}

    def _evaluation_example(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        decoded, vectors = self._decoder.split(self._decoder.decode(example["record"]))
        cropped = self.resize_and_crop.evaluation(
            decoded, padding=self._decoder.padding, labels=self._decoder.labels
        )
        images = self._decoder.by_role(cropped)
        if self.augments_evaluation:
            images = self._augmented(images, example_seed(self.seed, _EVALUATION_EPOCH, example["id"]))
        name = self._decoder.name(example["record"], example["id"])
        return self._with_small_input(images) | vectors | {"id": example["id"], "name": name}

    def _augmented(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, position: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Applies the augmentations, to float32 in [0, 1]; without any, returns the images unchanged."""
        if not self.augmentations:
            return images
        in_unit_range = {}
        for role, image in images.items():
            low, high = self.value_range(role)
            in_unit_range[role] = (tf.cast(image, tf.float32) - low) / (high - low)
        return augment(
            self.augmentations,
            in_unit_range,
            tf.random.fold_in(seed, tf.constant(1, tf.int64)),
            labels=[role for role, source in self.sources.items() if source.is_labels],
            position=position,
        )

    def _with_small_input(self, images: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Makes the input `input_downscale` times smaller."""
        if self.input_downscale == 1:
            return images
        height, width = (pixels // self.input_downscale for pixels in self.resize_and_crop.crop_size)
        is_labels = self.sources[INPUT].is_labels
        smaller = resizing.resize(images[INPUT], height=height, width=width, is_labels=is_labels)
        if smaller.dtype.is_floating:  # the kernel overshoots; whole numbers are clipped already
            low, high = (0.0, 1.0) if self.augmentations else self.value_range(INPUT)
            smaller = tf.clip_by_value(smaller, low, high)
        return images | {INPUT: smaller}

    @functools.cached_property
    def _decoder(self) -> ExampleDecoder:
        return ExampleDecoder(
            features=self.features,
            sources=self.sources,
            vectors=self.vectors,
            max_pixels=self.supply.max_pixels,
        )

    @functools.cached_property
    def _tolerant_reader(self) -> damaged_records.TolerantReader:
        first = self.part.shards[0].first_id
        with tf.init_scope():  # may be first used inside a graph, and must not belong to it
            return damaged_records.TolerantReader(
                records=self.split,
                ids=(first, first + self.part.examples),
                largest_bad_share=self.supply.largest_bad_share,
            )

    @functools.cached_property
    def _cache(self) -> tuple[image_cache.ImageCache | None, str]:
        """The `ImageCache`, or None; and a line for the log."""
        if self.supply.cache == NO_CACHE:
            return None, ""
        images = self._decoded_examples().with_options(self.supply.options)
        try:
            return image_cache.make_cache(images, supply=self.supply, path=self.cache_path(self._cached))
        except (tf.errors.DataLossError, tf.errors.FailedPreconditionError, tf.errors.InvalidArgumentError):
            self.check_records()  # TensorFlow's own error names no file
            raise

    @property
    def _cached(self) -> list:
        """What the cache holds of a record."""
        if self.supply.resizing != FAST:
            return self._decoder.contents
        return [*self._decoder.contents, (self.resize_and_crop.load_size, self.resize_and_crop.resize)]

    def _decoded_examples(self) -> tf.data.Dataset:
        """Decodes every example once: {"id": int64 [], "images": what the decoder returns}."""
        if self.supply.on_bad_record == SKIP:
            reader = self._tolerant_reader

            def read_and_decode(example_id: tf.Tensor) -> dict:
                images = reader.read(example_id, lambda record, _: self._decode(record, for_cache=True))
                return {"id": example_id, "images": images}

            ids = tf.data.Dataset.range(*reader.ids)
            return ids.map(read_and_decode, num_parallel_calls=tf.data.AUTOTUNE)
        return record_reader.stored_examples(self.part).map(
            lambda example: {"id": example["id"], "images": self._decode(example["record"], for_cache=True)},
            num_parallel_calls=tf.data.AUTOTUNE,
        )
