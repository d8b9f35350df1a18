"""Decoding a record into the images of an example, one for each role, and its vectors."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import tensorflow as tf
import tensorflow_datasets as tfds

from data.description import ImageFormat
from data.imaging import Classes
from data.tfrecords import image_decoding
from data.tfrecords.image_decoding import ReducedImage
from data.tfrecords.image_encoding import format_of

_HALVES = {"left": 0, "right": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where an image lies in a record.

    Attributes:
      feature: name of the feature.
      half: "left" or "right" for half of that image; "" for all of it.
      channels: those of the feature, unless the image has fewer (grey images of A beside coloured ones of B).
      classes: of labels, whose values are classes: all pixel values that occur; empty if they are too many
        to be listed. None for pictures.
      alpha: whether the feature's last channel is transparency; None if the data set does not say, as those
        of older code and of others: then a PNG of 2 or 4 channels is taken to have it, an array is not.
    """

    feature: str
    half: str = ""
    channels: int
    classes: Classes | None = None
    alpha: bool | None = None

    @property
    def is_labels(self) -> bool:
        """Whether the image's values are classes, which nothing may mix or change."""
        return self.classes is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleDecoder:
    """Decodes records.

    Attributes:
      features: the `tfds` features of the records.
      sources: role ("input", "target", "side_map") -> `ImageSource`. Two roles may have the same image, which
        is decoded once.
      vectors: role ("target", "side_vector") -> feature: a Tensor float32 [K], or a ClassLabel of K classes,
        which becomes one-hot.
      max_pixels: larger images fail, before they are decoded.
    """

    features: tfds.features.FeaturesDict
    sources: Mapping[str, ImageSource]
    vectors: Mapping[str, str]
    max_pixels: int

    def decode(self, record: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Decodes a record, in the graph.

        Args:
          record: string [].

        Returns:
          An image [H, W, C] of the stored dtype for each distinct source; then each vector, float32 [K].

        Raises:
          tf.errors.InvalidArgumentError: at run time, when an image cannot be decoded or a label is none of
            the classes.
        """
        parsed = image_decoding.parse_record(self.features, record)
        decoded: dict[tuple[str, int], tf.Tensor] = {}
        for source in self._distinct_sources:
            key = (source.feature, source.channels)
            if key not in decoded:
                decoded[key] = image_decoding.image_of(
                    parsed,
                    source.feature,
                    self.features[source.feature],
                    channels=source.channels,
                    max_pixels=self.max_pixels,
                )
        images = [
            _half_of(decoded[source.feature, source.channels], source.half)
            for source in self._distinct_sources
        ]
        return (*images, *self._vectors_of(parsed))

    def decode_reduced(
        self, record: tf.Tensor, least_size: tuple[int, int]
    ) -> tuple[list[ReducedImage], list[tf.Tensor]]:
        """Decodes a record, in the graph, with pictures at a reduced scale where that saves time.

        Args:
          record: string [].
          least_size: (height, width) that every picture keeps, if it has it. Labels keep their size.

        Returns:
          An image for each distinct source; and the vectors that `decode` returns.

        Raises:
          tf.errors.InvalidArgumentError: as `decode`.
        """
        parsed = image_decoding.parse_record(self.features, record)
        decoded: dict[tuple[str, int], ReducedImage] = {}
        images = []
        for source in self._distinct_sources:
            key = (source.feature, source.channels)
            if key not in decoded:
                sharing = [
                    other for other in self._distinct_sources if (other.feature, other.channels) == key
                ]
                decoded[key] = self._reduced(parsed, sharing, least_size)
            image = decoded[key]
            if source.half:
                half = _half_of(image.pixels, source.half)
                width = tf.cast(tf.shape(half)[1], tf.float64)
                image = image._replace(pixels=half, extent=tf.stack([image.extent[0], width]))
            images.append(image)
        return images, self._vectors_of(parsed)

    def split(self, decoded: tuple[tf.Tensor, ...]) -> tuple[tuple[tf.Tensor, ...], dict[str, tf.Tensor]]:
        """Splits what `decode` returns into the images, and role -> vector float32 [K]."""
        images = len(self._distinct_sources)
        return decoded[:images], dict(zip(self.vectors, decoded[images:], strict=True))

    def by_role(self, images: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns role -> image, for one image of each distinct source."""
        of_source = dict(zip(self._distinct_sources, images, strict=True))
        return {role: of_source[source] for role, source in self.sources.items()}

    def name(self, record: tf.Tensor, example_id: tf.Tensor) -> tf.Tensor:
        """Returns the name stored in a record, or else its id: string []."""
        if "name" in self.features:
            return image_decoding.parse_record(self.features, record)["name"]
        return tf.strings.as_string(example_id)

    def value_range(self, role: str) -> tuple[float, float]:
        """Returns (lowest, highest) value that an image of a role can have as stored."""
        return format_of(self.features[self.sources[role].feature]).value_range

    def image_format(self, role: str) -> ImageFormat:
        """Returns how the images of a role are stored."""
        source = self.sources[role]
        stored = format_of(self.features[source.feature])
        alpha = stored.is_encoded if source.alpha is None else source.alpha
        return ImageFormat(
            channels=source.channels,
            dtype=stored.dtype,
            value_range=stored.value_range,
            alpha=alpha and source.channels in (2, 4),  # one of two domains may lack it
        )

    @property
    def padding(self) -> tuple[float, ...]:
        """The padding value for each distinct source: the lowest one, black."""
        formats = [format_of(self.features[source.feature]) for source in self._distinct_sources]
        return tuple(stored.value_range[0] for stored in formats)

    @property
    def labels(self) -> tuple[bool, ...]:
        """For each distinct source, whether its values are classes."""
        return tuple(source.is_labels for source in self._distinct_sources)

    @property
    def contents(self) -> list[tuple]:
        """What `decode` returns of a record, in this order."""
        images = [(source.feature, source.half, source.channels) for source in self._distinct_sources]
        return images + [(feature,) for feature in self.vectors.values()]

    def _reduced(
        self, parsed: dict[str, tf.Tensor], sharing: Sequence[ImageSource], least_size: tuple[int, int]
    ) -> ReducedImage:
        """The image of which several sources are parts."""
        name, channels = sharing[0].feature, sharing[0].channels
        feature = self.features[name]
        if any(source.is_labels for source in sharing):
            return ReducedImage.whole(
                image_decoding.image_of(parsed, name, feature, channels=channels, max_pixels=self.max_pixels)
            )
        return image_decoding.reduced_image_of(
            parsed,
            name,
            feature,
            channels=channels,
            max_pixels=self.max_pixels,
            least_size=least_size,
            halves=any(source.half for source in sharing),
        )

    def _vectors_of(self, parsed: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        """The vectors of a parsed record, float32 [K] each."""
        return [_vector_of(parsed[feature], self.features[feature]) for feature in self.vectors.values()]

    @functools.cached_property
    def _distinct_sources(self) -> tuple[ImageSource, ...]:
        return tuple(dict.fromkeys(self.sources.values()))


def _vector_of(stored: tf.Tensor, feature: tfds.features.FeatureConnector) -> tf.Tensor:
    """The vector float32 [K] of a parsed feature, one-hot of a class label."""
    if not isinstance(feature, tfds.features.ClassLabel):
        return stored
    classes = feature.num_classes
    # TFDS stores -1 where an example has no label; one_hot would make zeros of it.
    is_class = tf.debugging.Assert(
        (stored >= 0) & (stored < classes), [f"its label is none of the {classes} classes"]
    )
    with tf.control_dependencies([is_class]):
        return tf.one_hot(stored, classes)  # [K]


def _half_of(image: tf.Tensor, half: str) -> tf.Tensor:
    """The left or right half of an image, or all of it."""
    if not half:
        return image
    width = tf.shape(image)[1] // 2
    start = _HALVES[half] * width
    return image[:, start : start + width]
