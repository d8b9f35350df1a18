"""Loads an exported network: a SavedModel or a .keras file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

import models.networks.edsr
import models.networks.resnet
import models.networks.unet  # noqa: F401, Keras then knows the layers of all three
from data import gfile, imaging
from engine.distribution.devices import Devices, make_devices
from engine.errors import ConfigurationError
from engine.inference.export_facts import IMAGE, OUTPUT, ExportFacts

_GRAPH, _KERAS = "saved_model.pb", ".keras"
_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedNetwork:
    """A network that was loaded.

    Attributes:
      inputs: name -> what it takes.
      output_channels: of its outputs.
      call: maps inputs by name to its output, in RGB.
      devices: on which its variables are; None is TensorFlow's default device.
    """

    inputs: Mapping[str, tf.TensorSpec]
    output_channels: int
    call: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
    devices: Devices | None = None


def find_network(path: str) -> str:
    """Finds a network.

    Args:
      path: a .keras file, a SavedModel, or the folder of an export.

    Returns:
      The path of a .keras file or of a SavedModel.

    Raises:
      ConfigurationError: there is none.
    """
    path = os.path.expanduser(path).rstrip("/")
    if path.endswith(_KERAS) and gfile.is_file(path):
        return path
    candidates = (path, f"{path}/1", f"{path}/saved_model/1", f"{path}/saved_model")
    for folder in candidates:
        if gfile.is_file(f"{folder}/{_GRAPH}"):
            return folder
    if gfile.is_file(f"{path}/generator.keras"):
        return f"{path}/generator.keras"
    raise ConfigurationError(
        f"--model={path}: holds no SavedModel and no .keras file; give a folder that engine.export wrote, or "
        "a file in it"
    )


def load_network(path: str, facts: ExportFacts) -> ExportedNetwork:
    """Loads what `find_network` found.

    Raises:
      ConfigurationError: it is damaged, or is no network from one picture to another.
    """
    try:
        return _loaded_keras(path, facts) if path.endswith(_KERAS) else _loaded_saved_model(path)
    except ConfigurationError:
        raise
    except Exception as error:  # both loaders raise errors of every type on damaged files
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0].rstrip(".")[:200]
        raise ConfigurationError(f"{path}: cannot be loaded ({reason}); export the run again") from error


def _loaded_saved_model(path: str) -> ExportedNetwork:
    loaded = tf.saved_model.load(path)
    if _SIGNATURE not in loaded.signatures:
        raise ConfigurationError(f"{path}: has no signature {_SIGNATURE!r}; export the run again")
    signature = loaded.signatures[_SIGNATURE]
    inputs = dict(signature.structured_input_signature[1])
    # A SavedModel of another program may call its only input and output as it likes.
    image = IMAGE if IMAGE in inputs or len(inputs) != 1 else next(iter(inputs))
    outputs = signature.structured_outputs
    output = OUTPUT if OUTPUT in outputs or len(outputs) != 1 else next(iter(outputs))
    names = {name: image if name == IMAGE else name for name in (IMAGE, *inputs)}
    if image not in inputs or output not in outputs or inputs[image].shape.rank != 4:
        raise ConfigurationError(f"{path}: takes no picture and makes one; give an export of engine.export")

    def call(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        assert loaded is not None, "the signature alone does not keep the variables"
        return signature(**{names[name]: values for name, values in features.items()})[output]

    return ExportedNetwork(
        inputs={name: spec for name, spec in inputs.items() if name != image} | {IMAGE: inputs[image]},
        output_channels=outputs[output].shape[-1],
        call=call,
    )


def _loaded_keras(path: str, facts: ExportFacts) -> ExportedNetwork:
    devices = make_devices("mirrored")
    with devices.strategy.scope():
        model = keras.saving.load_model(path, compile=False)
    shapes = [tuple(image.shape) for image in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or len(model.outputs) != 1:
        raise ConfigurationError(
            f"{path}: takes {len(shapes)} inputs, and only a picture can be given; use the SavedModel"
        )
    wanted = facts.inputs.get(IMAGE, {}).get("shape", shapes[0])[-1]
    if wanted != shapes[0][-1]:
        raise ConfigurationError(
            f"{path}: takes {shapes[0][-1]} channels for pictures of {wanted} (one-hot classes); use the "
            "SavedModel"
        )

    def call(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        picture = features[IMAGE]
        if picture.shape[-1] == 3:
            picture = imaging.rgb_to_space(picture, facts.colour_space)
        output = tf.cast(model(picture, training=False), tf.float32)
        return imaging.space_to_rgb(output, facts.colour_space) if output.shape[-1] == 3 else output

    return ExportedNetwork(
        inputs={IMAGE: tf.TensorSpec(shapes[0], tf.float32)},
        output_channels=model.outputs[0].shape[-1],
        call=call,
        devices=devices,
    )
