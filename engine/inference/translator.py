"""Translating pictures with the networks of a run, or with a generator of the PyTorch reference."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import tensorflow as tf

from data.description import DataDescription, ImageFormat
from data.imaging import OneHot
from data.roles import INPUT, SIDE_VECTOR, TARGET
from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError
from engine.inference.trained_size import TrainedSize, trained_size
from engine.input_pipeline.pictures import to_network, to_rgb
from engine.input_pipeline.recorded_data import describe
from engine.opened_run import open_run
from engine.task import LATENT_CODE, Task
from models.networks.generators import check_image_size
from models.networks.norms import INFERENCE_NORMS, BatchNorm
from models.pytorch.weights import load_generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translator:
    """A network that translates pictures.

    Attributes:
      description: one line for the console.
      input_channels: channels of its input.
      output_channels: channels of the pictures that it makes.
      check_size: raises ConfigurationError for a height and width (pixels) that it cannot take.
      translate: maps [B, H, W, input_channels] in [-1, 1] (RGB), and codes [B, latent_size] or None, to the
        output of the network, in its own colour space: [B, H', W', C] in [-1, 1].
      to_rgb: maps the output to [B, H', W', C] from -1 to 1, 3 channels being RGB.
      input_format: how the data set stored the images that the network takes; None if that is not known.
      input_classes: that the network takes one-hot; None if it takes values.
      output_format: how the data set stored the images that it makes; None if that is not known.
      size: the size at which the network saw images in training; None if they kept their own, or it is not
        known.
      latent_size: numbers of a code; 0 if the network takes none.
      encode: maps pictures such as those that the network makes, [B, H, W, C] in [-1, 1] (RGB), to codes.
    """

    description: str
    input_channels: int
    output_channels: int
    check_size: Callable[[int, int], None]
    translate: Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
    to_rgb: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    input_format: ImageFormat | None = None
    input_classes: OneHot | None = None
    output_format: ImageFormat | None = None
    size: TrainedSize | None = None
    latent_size: int = 0
    encode: Callable[[tf.Tensor], tf.Tensor] | None = None


def translator_of_torch_file(path: str, *, network: str | None, norm_mode: str | None) -> Translator:
    """Loads a generator that the reference saved; see `models.pytorch.weights.load_generator`.

    Args:
      path: the .pth file.
      network: the architecture it must have; None takes whatever the file holds.
      norm_mode: one of `models.networks.norms.INFERENCE_NORMS`; None is "batch_statistics", as in the
        reference's test program.

    Raises:
      ConfigurationError: the file or an argument cannot be used.
    """
    _check_norm_mode(norm_mode)
    set_precision("float32")
    norm_mode = norm_mode or "batch_statistics"
    name, model = load_generator(path, network=network, inference_norm=norm_mode)

    @tf.function(autograph=False, reduce_retracing=True)
    def translate(pictures: tf.Tensor, codes: None) -> tf.Tensor:
        del codes
        return model(pictures, training=False)

    input_channels, output_channels = model.input_shape[-1], model.output_shape[-1]
    return Translator(
        description=f"{name} of {path}, {input_channels} -> {output_channels} channels, "
        + _norm_note(_batch_norms([model])),
        input_channels=input_channels,
        output_channels=output_channels,
        check_size=functools.partial(check_image_size, name),
        translate=translate,
    )


def translator_of_run(
    workdir: str,
    *,
    checkpoint: str,
    norm_mode: str | None,
    side_vector: str | None = None,
    direction: str | None = None,
) -> Translator:
    """Loads the networks of a run; those averaged by EMA, if there are any.

    Args:
      workdir: run directory.
      checkpoint: "latest", "best", or a position in examples.
      norm_mode: one of `models.networks.norms.INFERENCE_NORMS`; None is the setting of the run's task.
      side_vector: side information for every picture, if the networks take a vector: numbers such as
        "0.3,1", or the name of a class of the run's data set.
      direction: "AtoB" or "BtoA"; None is the direction of the run.

    Raises:
      ConfigurationError: the run or an argument cannot be used.
      data.errors.DataError: an older run has not recorded its data set, which cannot be used.
    """
    _check_norm_mode(norm_mode)
    trainer = open_run(workdir, checkpoint=checkpoint)
    task, data = trainer.experiment.task, describe(trainer.experiment.data)
    source, result = (TARGET, INPUT) if _is_reversed(direction, data, task) else (INPUT, TARGET)
    side_inputs = _side_inputs(
        task.side_inputs,
        trainer.experiment.data.example_spec,
        side_vector=side_vector,
        class_names=data.side_classes,
    )
    networks = trainer.state.evaluation_networks
    batch_norms = _batch_norms(networks.values())
    if norm_mode is not None:
        for layer in batch_norms:
            layer.inference_norm = norm_mode

    @tf.function(autograph=False, reduce_retracing=True)
    def translate(pictures: tf.Tensor, codes: tf.Tensor | None) -> tf.Tensor:
        batch = {source: tf.cast(to_network(data, pictures, role=source), keras.config.floatx())}
        if source == TARGET:
            return task.translate_back(networks, batch)
        for name, numbers in side_inputs.items():
            one = tf.constant([numbers], keras.config.floatx())
            batch[name] = tf.repeat(one, tf.shape(pictures)[0], axis=0)  # [B, K]
        if codes is not None:
            batch[LATENT_CODE] = tf.cast(codes, keras.config.floatx())
        return task.translate(networks, batch)

    def encode(pictures: tf.Tensor) -> tf.Tensor:
        images = to_network(data, pictures, role=TARGET)
        return task.encode(networks, tf.cast(images, keras.config.floatx()))

    return Translator(
        description=f"{workdir} at {trainer.examples} examples, " + _norm_note(batch_norms),
        input_channels=_picture_channels(data, source),
        output_channels=data.shapes[result][-1],
        check_size=functools.partial(
            _check_size, task, trainer.experiment.data.example_spec, source, known_sizes=set()
        ),
        translate=translate,
        to_rgb=functools.partial(to_rgb, data),
        input_format=data.images.get(source),
        input_classes=data.one_hot.get(source),
        output_format=data.images.get(result),
        size=trained_size(data, source),
        latent_size=task.latent_size,
        encode=encode if task.latent_size else None,
    )


def _picture_channels(data: DataDescription, role: str) -> int:
    """The channels of pictures that take the place of images, which networks may see one-hot."""
    return len(data.one_hot[role].classes[0]) if role in data.one_hot else data.shapes[role][-1]


def _is_reversed(direction: str | None, data: DataDescription, task: Task) -> bool:
    """Whether `direction` is not the one of the run.

    Raises:
      ConfigurationError: it is unknown, or the task translates in one direction only.
    """
    if direction is None:
        return False
    if direction not in ("AtoB", "BtoA"):
        raise ConfigurationError(f"--direction={direction}: unknown; use AtoB or BtoA")
    trained = data.direction or "AtoB"
    if direction != trained and not task.translates_back:
        raise ConfigurationError(
            f"--direction={direction}: the run translates {trained} only; leave it out, or train another run "
            f"with DIRECTION = '{direction}'"
        )
    return direction != trained


def _check_size(
    task: Task,
    example: Mapping[str, tf.TensorSpec],
    source: str,
    height: int,
    width: int,
    *,
    known_sizes: set[tuple[int, int]],
) -> None:
    """Asks a task whether it takes examples that are scaled as a picture is.

    Args:
      task: of the run.
      example: shapes of the run's examples.
      source: the feature that the picture takes the place of.
      height: of the picture, in pixels.
      width: likewise.
      known_sizes: sizes that the task takes; the picture's is added.

    Raises:
      ConfigurationError: it does not.
    """
    trained_height, trained_width, _ = example[source].shape
    if (height, width) in known_sizes | {(trained_height, trained_width)}:
        return
    scaled = {
        name: tf.TensorSpec(
            [
                spec.shape[0] * height // trained_height,
                spec.shape[1] * width // trained_width,
                *spec.shape[2:],
            ],
            spec.dtype,
        )
        for name, spec in example.items()
        if spec.shape.rank == 3
    }
    task.check_translation({**example, **scaled})
    known_sizes.add((height, width))


def _side_inputs(
    names: Sequence[str],
    example: Mapping[str, tf.TensorSpec],
    *,
    side_vector: str | None,
    class_names: Sequence[str],
) -> dict[str, list[float]]:
    """Parses the side information for every picture.

    Args:
      names: `Task.side_inputs`.
      example: shapes of the run's examples.
      side_vector: the flag; None if it is not given.
      class_names: classes that the numbers of a vector stand for; empty if they do not.

    Returns:
      Its numbers, by name.

    Raises:
      ConfigurationError: the flag is missing, superfluous or malformed.
    """
    unknown = [name for name in names if name != SIDE_VECTOR]
    if unknown:
        raise ConfigurationError(
            f"the run's networks take {unknown[0]!r} with each picture, for which there is no flag; prepare "
            "a data set of the pictures and their maps, and use engine.evaluate"
        )
    if not names:
        if side_vector is not None:
            raise ConfigurationError(
                f"--side_vector={side_vector}: the run's networks take none; leave it out"
            )
        return {}
    [size] = example[SIDE_VECTOR].shape
    wanted = f"{size} number{'' if size == 1 else 's'} such as {','.join(['0.5'] * size)}"
    if class_names:
        wanted = f"one of {', '.join(class_names)}, or {wanted}"
    if side_vector is None:
        raise ConfigurationError(f"no --side_vector given, which the run's networks take: {wanted}")
    if side_vector in class_names:
        return {SIDE_VECTOR: [float(name == side_vector) for name in class_names]}
    try:
        numbers = [float(text) for text in side_vector.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != size or not all(map(math.isfinite, numbers)):
        raise ConfigurationError(f"--side_vector={side_vector}: must be {wanted}")
    return {SIDE_VECTOR: numbers}


def _check_norm_mode(norm_mode: str | None) -> None:
    if norm_mode not in (None, *INFERENCE_NORMS):
        raise ConfigurationError(
            f"--norm_mode={norm_mode}: unknown; choose one of {', '.join(INFERENCE_NORMS)}"
        )


def _batch_norms(layers: Iterable[keras.Layer]) -> list[BatchNorm]:
    """The batch norms among the layers, nested networks included."""
    found: list[BatchNorm] = []
    for layer in layers:
        found += [layer] if isinstance(layer, BatchNorm) else _batch_norms(getattr(layer, "layers", ()))
    return found


def _norm_note(batch_norms: list[BatchNorm]) -> str:
    modes = " and ".join(sorted({layer.inference_norm for layer in batch_norms}))
    return f"batch norm with {modes}" if modes else "no batch norm (so no norm mode)"
