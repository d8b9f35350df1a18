"""Pictures on which an export is compared with its run, and by which int8 is calibrated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from data.errors import DataError
from data.roles import SIDE_MAP, SIDE_VECTOR
from engine.errors import ConfigurationError
from engine.exporting.encoded_pictures import pixel_format
from engine.exporting.translation import IMAGE, Translation
from engine.input_pipeline.pictures import to_rgb
from engine.input_pipeline.recorded_data import unwrapped
from engine.pictures.role_format import role_format
from engine.task import LATENT_CODE
from engine.training_data import TrainingData

_NOISE_CELLS = 8  # of smooth noise, along the shorter side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples as an export takes them.

    Attributes:
      features: those of `Translation.features`, by name, each [N, ...].
      targets: RGB [N, H, W, C] in [-1, 1]; None where no target belongs to each picture.
      origin: what they are, for people.
    """

    features: dict[str, tf.Tensor]
    targets: tf.Tensor | None
    origin: str

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.features[IMAGE].shape[0])


def examples_of(translation: Translation, data: TrainingData, *, count: int, train: bool = False) -> Examples:
    """Reads the first examples of a split, or makes up noise where the data set is not there.

    Args:
      translation: says what is needed of an example.
      data: of the run.
      count: how many, at most.
      train: the training split; otherwise the test split, or that of the evaluations in training.
    """
    splits = getattr(unwrapped(data), "splits", ()) if _is_there(data) else ()
    split = "train" if train else "test" if "test" in splits else data.evaluation_split
    try:
        batch = next(iter(data.evaluation(split, batch=count)))
    except (DataError, ConfigurationError, tf.errors.OpError, OSError, StopIteration) as error:
        return _noise(translation, count=count, why=str(error).partition(";")[0] or "it has no examples")
    batch = {name: values[:count] for name, values in batch.items()}
    features = {IMAGE: _pictures(translation, batch[translation.source])}
    rows = int(features[IMAGE].shape[0])
    for name, spec in translation.features.items():
        if name == LATENT_CODE:
            features[name] = _codes(rows, spec.shape[-1])
        elif name == SIDE_MAP:
            features[name] = _maps(translation, batch[name])
        elif name == SIDE_VECTOR:
            features[name] = tf.cast(batch[name], tf.float32)
    targets = batch.get(translation.result) if data.is_paired else None
    if targets is not None:
        targets = to_rgb(translation.data, tf.cast(targets, tf.float32))
    return Examples(features=features, targets=targets, origin=f"examples of the split {split!r}")


def one_by_one(examples: Examples) -> Iterator[dict[str, tf.Tensor]]:
    """Each example by itself, as a batch of one."""
    for row in range(examples.count):
        yield {name: values[row : row + 1] for name, values in examples.features.items()}


def _is_there(data: TrainingData) -> bool:
    try:
        return bool(getattr(unwrapped(data), "splits", ()))
    except DataError:
        return False


def _pictures(translation: Translation, images: tf.Tensor) -> tf.Tensor:
    """Inputs of networks as pictures that files of the data set could hold."""
    classes = translation.data.one_hot.get(translation.source)
    if classes is not None:
        return _of_classes(np.asarray(classes.classes), classes.value_range, images)
    pictures = to_rgb(translation.data, tf.cast(images, tf.float32))
    stored = pixel_format(translation.input_format)
    return stored.to_signed(stored.to_pixels(pictures))


def _maps(translation: Translation, maps: tf.Tensor) -> tf.Tensor:
    classes = translation.data.one_hot.get(SIDE_MAP)
    if classes is not None:
        return _of_classes(np.asarray(classes.classes), classes.value_range, maps)
    stored = pixel_format(role_format(translation.data, SIDE_MAP))
    return stored.to_signed(stored.to_pixels(maps))


def _of_classes(classes: np.ndarray, value_range: tuple[float, float], one_hot: tf.Tensor) -> tf.Tensor:
    """One-hot images as pictures in [-1, 1]; a pixel that is no class becomes the lowest value."""
    low, high = value_range
    levels = tf.constant((classes - low) / (high - low), tf.float32)  # [K, C]
    return tf.tensordot(tf.cast(one_hot, tf.float32), levels, 1) * 2.0 - 1.0


def _codes(rows: int, size: int) -> tf.Tensor:
    """The code 0, which is the most likely one, then random ones: [rows, size]."""
    codes = tf.random.stateless_normal([rows, size], seed=(0, 0))
    return tf.concat([tf.zeros_like(codes[:1]), codes[1:]], axis=0)


def _noise(translation: Translation, *, count: int, why: str) -> Examples:
    """Smooth noise of a fixed seed, of the size of the training."""
    height, width = translation.data.shapes[translation.source][:2]
    features = {}
    for number, (name, spec) in enumerate(translation.features.items()):
        if spec.shape.rank == 4:
            coarse = tf.random.stateless_uniform(
                [count, _NOISE_CELLS, _NOISE_CELLS, spec.shape[-1]], (number, 1), -1.0, 1.0
            )
            features[name] = tf.image.resize(coarse, [height, width])
        elif name == LATENT_CODE:
            features[name] = _codes(count, spec.shape[-1])
        else:
            features[name] = tf.random.stateless_uniform([count, spec.shape[-1]], (number, 1))
    stored = pixel_format(translation.input_format)
    features[IMAGE] = stored.to_signed(stored.to_pixels(features[IMAGE]))
    origin = f"pictures of fixed noise, because the data set cannot be read ({why})"
    return Examples(features=features, targets=None, origin=origin)
