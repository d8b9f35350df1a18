"""One sequence of examples: read in its order, decoded, framed, augmented."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import tensorflow as tf
import tensorflow_datasets as tfds

from data.augmentation.compose import augment
from data.errors import DataError
from data.pipeline import damaged_records, image_cache, record_reader, resizing
from data.pipeline.cropping import Framing, example_seed
from data.roles import SIDE_VECTOR
from data.supply import NO_CACHE, SKIP, Supply
from data.tfrecords import image_decoding
from data.tfrecords.image_encoding import format_of
from data.tfrecords.prepared_dataset import Records

_EVALUATION_EPOCH = -1
_HALVES = {"left": 0, "right": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where an image lies in a record: a feature, or its "left" or "right" half.

    `channels` is that of the feature unless the image has fewer (a grey side beside a coloured one).
    """

    feature: str
    half: str = ""
    channels: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleStream:
    """Examples of one part of a split.

    Attributes:
        features: the `tfds` features of the records.
        split: all `Records` of the split.
        part: those of them that are drawn.
        sides: role ("input", "target", "side_map") -> `ImageSource`; two roles may have the same image.
        framing, augmentations: what is done to the images; augmentations only in training.
        seed: of the order and of all that is random in an example.
        supply: how records are read.
        cache_path: gives the file in which this stream would be cached on disk.
        augments_evaluation: apply the augmentations in evaluation too, each example always alike.
        input_downscale: how many times smaller inputs become than targets, after all of that.
    """

    features: tfds.features.FeaturesDict
    split: Records
    part: Records
    sides: Mapping[str, ImageSource]
    framing: Framing
    augmentations: tuple
    seed: int
    supply: Supply
    cache_path: Callable[[], str]
    augments_evaluation: bool = False
    input_downscale: int = 1

    @functools.cached_property
    def order(self):
        """The `data.pipeline.example_order.ExampleOrder` of training."""
        return record_reader.example_order(
            records=self.part, seed=self.seed, window_bytes=self.supply.window_bytes
        )

    def training(self, *, position_examples, is_kept):
        """Examples for ever from a position on.

        Args:
            position_examples: examples drawn since the start of the run.
            is_kept: bool [global batch]; rows of every batch to give, the only ones decoded.

        Returns:
            A data set of {role: [*crop_size, C] in the stored dtype, or float32 in [0, 1] if there are
            augmentations; "id": int64 []; "side_vector": float32 [K] if there is one}.
        """
        read = {"records": self.part, "order": self.order, "position_examples": position_examples}
        if self.supply.service:
            examples = record_reader.training_windows(**read)
        elif self._by_id:
            examples = record_reader.training_ids(**read)
        else:
            examples = record_reader.training_examples(**read)
        if not all(is_kept):
            rows = tf.constant(is_kept)
            examples = examples.enumerate().filter(lambda drawn, _: rows[drawn % len(is_kept)])
            examples = examples.map(lambda _, example: example)
        return examples.map(self._traced_training_example, num_parallel_calls=tf.data.AUTOTUNE)

    def evaluation(self):
        """One pass in storage order, nothing of it random.

        Returns:
            A finite data set of what `training` gives, and "name": string []. Damaged records are left
            out where training passes over them.
        """
        if self.supply.on_bad_record == SKIP:
            examples = tf.data.Dataset.range(*self._tolerant.ids)

            def prepare(found):
                return self._evaluation_example({"record": self._tolerant.record(found), "id": found})

            examples = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
            return examples.ignore_errors(log_warning=True)
        examples = record_reader.stored_examples(self.part)
        return examples.map(self._traced_evaluation_example, num_parallel_calls=tf.data.AUTOTUNE)

    def value_range(self, role):
        """(lowest, highest) value that an image of a role can have as stored."""
        return format_of(self.features[self.sides[role].feature]).value_range

    @property
    def notes(self):
        """What there is to tell of reading so far, a list of lines: of the cache, of damaged records."""
        cache = [] if self.supply.cache == NO_CACHE else [self._cache[1]]
        return cache + [f"{damaged}: another is trained on in its place" for damaged in self._damaged()]

    def _damaged(self):
        if self.supply.on_bad_record != SKIP:
            return []
        return [f"{path}: record {index} is damaged" for path, index in self._tolerant.damaged()]

    def check_records(self, position_examples=None):
        """Reads records until one cannot be used, those drawn next from a position on first.

        Where damaged records are passed over, says instead whether there were too many of them.

        Raises:
            DataError: names its file, its index there, and the reason.
        """
        if self.supply.on_bad_record == SKIP:
            self._check_share()
            return
        shards = dict.fromkeys(self.part.shards)
        if position_examples is not None:
            shards = (
                dict.fromkeys(record_reader.shards_from(self.part, self.order, position_examples)) | shards
            )
        for shard in shards:
            if found := damaged_records.first_damaged(shard, self._decoded):
                index, reason = found
                raise DataError(
                    f"{shard.path}: record {index} is damaged ({reason}); prepare the data set again, or go "
                    "on without it: --gin_param='supply.Supply.on_bad_record = \"skip\"'."
                )

    def _check_share(self):
        damaged = self._damaged()
        if len(damaged) > self._tolerant.largest_bad:
            raise DataError(
                f"{damaged[0]}, and {len(damaged) - 1} more of {self.part.examples} examples, which is more "
                f"than largest_bad_share = {self.supply.largest_bad_share}; prepare the data set again."
            )

    @property
    def _by_id(self):
        # The cache is asked first: it must have been filled before an example is traced.
        return self._cache[0] is not None or self.supply.on_bad_record == SKIP

    # Traced once, however often a stream is opened: at every batch boundary, for every evaluation.
    @functools.cached_property
    def _traced_training_example(self):
        return tf.function(self._training_example, autograph=False)

    @functools.cached_property
    def _traced_evaluation_example(self):
        return tf.function(self._evaluation_example, autograph=False)

    def _training_example(self, example):
        epoch = example["epoch"]
        if "record" in example:
            return self._trained_on(self._decoded(example["record"]), example["id"], epoch)
        cache = self._cache[0]
        if cache is not None:
            return self._trained_on(cache.images(example["id"]), example["id"], epoch)
        return self._tolerant.read(
            example["id"], lambda record, found: self._trained_on(self._decoded(record), found, epoch)
        )

    def _trained_on(self, decoded, example_id, epoch):
        """Frames and augments the images of an example: {role: image, "id"}, and its vector."""
        seed = example_seed(self.seed, epoch, example_id)
        images, vector = self._parted(decoded)
        framed = self._by_role(self.framing.training(images, seed, padding=self._padding))
        return self._sized(self._augmented(framed, seed)) | vector | {"id": example_id}

    def _augmented(self, images, seed):
        """{role: image} after the augmentations, float32 in [0, 1]; unchanged if there are none."""
        if not self.augmentations:
            return images
        in_unit_range = {}
        for role, image in images.items():
            low, high = self.value_range(role)
            in_unit_range[role] = (tf.cast(image, tf.float32) - low) / (high - low)
        return augment(self.augmentations, in_unit_range, tf.random.fold_in(seed, tf.constant(1, tf.int64)))

    def _sized(self, images):
        """{role: image} with the input made smaller, if it is to be."""
        if self.input_downscale == 1:
            return images
        height, width = (side // self.input_downscale for side in self.framing.crop_size)
        smaller = resizing.resize(images["input"], height=height, width=width)
        if smaller.dtype.is_floating:  # the kernel overshoots; whole numbers are clipped already
            low, high = (0.0, 1.0) if self.augmentations else self.value_range("input")
            smaller = tf.clip_by_value(smaller, low, high)
        return images | {"input": smaller}

    def _evaluation_example(self, example):
        images, vector = self._parted(self._decoded(example["record"]))
        images = self._by_role(self.framing.evaluation(images, padding=self._padding))
        if self.augments_evaluation:
            images = self._augmented(images, example_seed(self.seed, _EVALUATION_EPOCH, example["id"]))
        if "name" in self.features:
            name = image_decoding.parse_record(self.features, example["record"])["name"]
        else:
            name = tf.strings.as_string(example["id"])
        return self._sized(images) | vector | {"id": example["id"], "name": name}

    @functools.cached_property
    def _distinct_sides(self):
        return tuple(dict.fromkeys(self.sides.values()))

    @property
    def _padding(self):
        """What lies beside an image: the lowest value, black."""
        return tuple(format_of(self.features[side.feature]).value_range[0] for side in self._distinct_sides)

    def _by_role(self, images):
        of_side = dict(zip(self._distinct_sides, images, strict=True))
        return {role: of_side[side] for role, side in self.sides.items()}

    def _parted(self, decoded):
        """What `_decoded` gives: the images, and {"side_vector": float32 [K]} if there is one."""
        images = len(self._distinct_sides)
        return decoded[:images], {SIDE_VECTOR: decoded[-1]} if len(decoded) > images else {}

    def _decoded(self, record):
        """The images of a record, one for each distinct side: [H, W, C] of the stored dtypes; the vector."""
        parsed = image_decoding.parse_record(self.features, record)
        decoded = {}
        for side in self._distinct_sides:
            key = (side.feature, side.channels)
            if key not in decoded:
                decoded[key] = image_decoding.image_of(
                    parsed,
                    side.feature,
                    self.features[side.feature],
                    channels=side.channels,
                    max_pixels=self.supply.max_pixels,
                )
        images = []
        for side in self._distinct_sides:
            image = decoded[side.feature, side.channels]
            if side.half:
                half = tf.shape(image)[1] // 2
                start = _HALVES[side.half] * half
                image = image[:, start : start + half]
            images.append(image)
        return (*images, parsed[SIDE_VECTOR]) if SIDE_VECTOR in self.features else tuple(images)

    @functools.cached_property
    def _tolerant(self):
        first = self.part.shards[0].first_id
        with tf.init_scope():  # asked for inside a graph, but of use to all
            return damaged_records.TolerantReader(
                records=self.split,
                ids=(first, first + self.part.examples),
                largest_bad_share=self.supply.largest_bad_share,
            )

    @functools.cached_property
    def _cache(self):
        """(the `ImageCache`, or None; what there is to tell of it)."""
        if self.supply.cache == NO_CACHE:
            return None, ""
        if self.supply.on_bad_record == SKIP:
            first, stop = self._tolerant.ids
            images = tf.data.Dataset.range(first, stop).map(
                lambda k: {
                    "id": k,
                    "images": self._tolerant.read(k, lambda record, _: self._decoded(record)),
                },
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        else:
            images = record_reader.stored_examples(self.part).map(
                lambda example: {"id": example["id"], "images": self._decoded(example["record"])},
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        images = images.with_options(self.supply.options)
        try:
            return image_cache.make_cache(images, supply=self.supply, path=self.cache_path())
        except (tf.errors.DataLossError, tf.errors.FailedPreconditionError, tf.errors.InvalidArgumentError):
            self.check_records()  # TensorFlow's own error names no file
            raise
