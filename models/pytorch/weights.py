"""Copies weights of the reference's networks into ours and back, all of them or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from engine.errors import ConfigurationError
from models.networks.conditioning import SideShapes
from models.networks.generators import REFERENCE_GENERATORS, build_generator
from models.pytorch.architecture import (
    Architecture,
    architecture_of_file,
    architecture_of_model,
    generator_architecture,
)
from models.pytorch.author_networks import CodedUnet, author_network, coded_unet
from models.pytorch.parameter_names import listed, to_keras_layout
from models.pytorch.state_dict_file import read_state_dict, write_state_dict


def load_generator(
    path: str, *, network: str | None = None, inference_norm: str = "batch_statistics"
) -> tuple[str, keras.Model]:
    """Builds the generator that a file of the reference holds; width, channels and norm follow from the file.

    Args:
      path: the .pth file.
      network: key of REFERENCE_GENERATORS that the file must hold; None accepts all of them.
      inference_norm: see `models.networks.generators.build_generator`.

    Returns:
      The network's key in REFERENCE_GENERATORS, and the model with its weights. BicycleGAN's generator also
      takes codes [B, Z].

    Raises:
      ConfigurationError: the network is unknown, the file holds another one, or parameters are missing or
        surplus.
    """
    if network is not None and network not in REFERENCE_GENERATORS:
        raise ConfigurationError(
            f"--network={network}: unknown; choose one of: {', '.join(REFERENCE_GENERATORS)}"
        )
    arrays = read_state_dict(path)
    if coded := coded_unet(_shapes(arrays), where=path):
        return coded.network, _coded_generator(path, arrays, coded, network)
    architecture = _known_generator(path, arrays, network)
    missing, surplus = _differences(architecture, arrays)
    if missing or surplus:
        raise ConfigurationError(_misfit(path, architecture, arrays))
    try:
        widths = architecture.widths(_shapes(arrays))
    except ValueError as error:
        raise ConfigurationError(
            f"{path}: {error}, so this is no complete {architecture}; copy the file again"
        ) from error
    model = build_generator(
        architecture.network,
        name=architecture.network,
        filters=widths["filters"],
        input_channels=widths["input_channels"],
        output_channels=widths["output_channels"],
        norm=architecture.norm,
        dropout=architecture.dropout,
        inference_norm=inference_norm,
    )
    set_weights(model, fitting_weights(model, arrays, where=path))
    return architecture.network, model


def _coded_generator(
    path: str, arrays: Mapping[str, np.ndarray], coded: CodedUnet, network: str | None
) -> keras.Model:
    """BicycleGAN's generator with the code at every downsampling."""
    if coded.network not in REFERENCE_GENERATORS or network not in (None, coded.network):
        raise ConfigurationError(
            f"{path}: holds BicycleGAN's generator {coded.network}, not "
            f"{network or 'one that we can build'}; give a file with one of {', '.join(REFERENCE_GENERATORS)}"
        )
    model = build_generator(
        coded.network,
        name=coded.network,
        filters=coded.filters,
        input_channels=coded.input_channels,
        output_channels=coded.output_channels,
        norm="instance",
        dropout=False,
        side=SideShapes(tiled=coded.latent_size, tiled_at="all"),
    )
    set_weights(model, fitting_weights(model, arrays, where=path))
    return model


def _known_generator(path: str, arrays: Mapping[str, np.ndarray], network: str | None) -> Architecture:
    """The architecture of the generator in a file, if it is `network`, or any that we can build."""
    if author := author_network(_shapes(arrays), None, where=path):
        raise ConfigurationError(
            f"{path}: holds {author.name}, which cannot be translated with alone; start a run from it with "
            "INITIALISE_FROM"
        )
    found = architecture_of_file(_shapes(arrays))
    wanted = network or (found.network if found else None)
    if wanted is None or wanted not in REFERENCE_GENERATORS:
        raise ConfigurationError(
            f"{path}: holds {found or 'no network of the reference'}, not a generator that we can build; "
            f"give a file with one of {', '.join(REFERENCE_GENERATORS)} (this one has {listed(arrays)})"
        )
    if found is None or found.network != wanted:
        norm = found.norm if found else "batch"
        raise ConfigurationError(_misfit(path, generator_architecture(wanted, norm=norm), arrays, held=found))
    return found


def fitting_weights(
    model: keras.Model, arrays: Mapping[str, np.ndarray], *, where: str
) -> dict[str, np.ndarray]:
    """Converts the reference's parameters to weights of the model.

    Args:
      model: one of our networks.
      arrays: the parameters, by the reference's names and in its layouts.
      where: source of the arrays, for errors.

    Returns:
      Path of each of the model's weights -> array in our layout.

    Raises:
      ConfigurationError: the arrays belong to another network, some are missing or surplus, or shapes differ.
    """
    author = author_network(_shapes(arrays), model, where=where)
    if author is not None:
        return author.fitting_weights(model, arrays, where=where)
    wanted = _counterpart(model)
    held = architecture_of_file(_shapes(arrays))
    # Dropout has no weights: it changes only the numbers in the names.
    if held is None or dataclasses.replace(held, dropout=wanted.dropout) != wanted:
        raise ConfigurationError(_misfit(where, wanted, arrays, held=held))
    missing, surplus = _differences(held, arrays)
    weights = {weight.path: weight for weight in model.weights}
    paths = held.parameters()
    found = {path: to_keras_layout(arrays[name]) for name, path in paths.items() if name in arrays}
    wrong = [
        f"{name} {list(arrays[name].shape)} for {_reference_shape(weights[path])}"
        for name, path in paths.items()
        if path in found and found[path].shape != tuple(weights[path].shape)
    ]
    if missing or surplus or wrong:
        raise ConfigurationError(_misfit(where, held, arrays, wrong_shapes=wrong))
    broken = [name for name in paths if not np.all(np.isfinite(arrays[name]))]
    if broken:
        raise ConfigurationError(
            f"{where}: holds numbers that are not finite in {listed(broken)}; take an earlier checkpoint"
        )
    # In networks without norm, the reference has no biases; ours have no effect at 0.
    return {
        path: found[path] if path in found else np.zeros(weight.shape) for path, weight in weights.items()
    }


def held_weights(
    model: keras.Model, arrays: Mapping[str, np.ndarray], *, where: str
) -> dict[str, np.ndarray]:
    """Converts what a file holds, whether or not it fits.

    Args:
      model: that shall take some of it.
      arrays: the parameters, by the reference's names and in its layouts.
      where: source of the arrays, for errors.

    Returns:
      Path of the weight in our network of the same architecture -> array in our layout.

    Raises:
      ConfigurationError: the parameters belong to no network of the reference.
    """
    author = author_network(_shapes(arrays), model, where=where)
    if author is not None:
        return author.weights(arrays)
    held = architecture_of_file(_shapes(arrays))
    if held is None:
        raise ConfigurationError(
            f"{where}: holds no network of the reference; give one of its files (this one has "
            f"{listed(arrays)})"
        )
    paths = held.parameters()
    return {path: to_keras_layout(arrays[name]) for name, path in paths.items() if name in arrays}


def set_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Assigns all weights of the model.

    Args:
      model: one of our networks.
      weights: path of each weight -> array of its shape.
    """
    for weight in model.weights:
        weight.assign(weights[weight.path])


def save_reference(model: keras.Model, path: str) -> None:
    """Writes a network as a .pth file that the reference loads as its own.

    Args:
      model: a network with a counterpart in the reference.
      path: the file to write.

    Raises:
      ConfigurationError: the reference has no such network, or the file cannot be written.
    """
    write_state_dict(path, reference_arrays(model))


def reference_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Converts the model's weights to parameters of the reference.

    Returns:
      The reference's name -> float32 array in its layout. `num_batches_tracked` is 0: the reference requires
      it, but never uses it.

    Raises:
      ConfigurationError: the reference has no such network.
    """
    architecture = _counterpart(model)
    weights = {weight.path: np.asarray(weight.numpy(), np.float32) for weight in model.weights}
    arrays = {}
    for name, path in architecture.parameters().items():
        array = weights.pop(path)
        arrays[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        if name.endswith(".running_var"):
            arrays[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    biased = [path for path, array in weights.items() if np.any(array)]
    if biased:
        raise ConfigurationError(
            f"{model.name}: has learned {listed(biased)}, but the reference's networks without norm have no "
            "biases; only a network with a norm can be written for the reference"
        )
    return arrays


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _counterpart(model: keras.Model) -> Architecture:
    """The network of the reference with exactly this model's weights."""
    architecture = architecture_of_model(model)
    paths = {weight.path for weight in model.weights}
    theirs = set(architecture.parameters().values()) if architecture else set()
    if architecture is not None and architecture.norm == "none":
        paths -= {path for path in paths if path.endswith("/bias") and path not in theirs}
    if architecture is None or paths != theirs:
        raise ConfigurationError(
            f"{model.name}: the reference has no such network; only those of models/networks/unet.py, "
            "resnet.py and patchgan.py can be exchanged with it"
        )
    return architecture


def _differences(architecture: Architecture, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """The missing names, and the surplus names."""
    expected = architecture.parameters()
    ignored = {f"{module}.num_batches_tracked" for module in architecture.norms()}
    if architecture.norm == "instance":  # PyTorch 0.3 stored statistics that it never used
        ignored |= {f"{module}.running_{what}" for module in architecture.norms() for what in ("mean", "var")}
    surplus = [name for name in arrays if name not in expected and name not in ignored]
    return [name for name in expected if name not in arrays], surplus


def _misfit(
    where: str,
    wanted: Architecture,
    arrays: Mapping[str, np.ndarray],
    *,
    held: Architecture | None = None,
    wrong_shapes: Iterable[str] = (),
) -> str:
    """The error that lists what does not fit; `held` is the file's network where it is another one."""
    missing, surplus = _differences(wanted, arrays)
    lists = (("missing", missing), ("too many", surplus), ("of another shape", wrong_shapes))
    text = "; ".join(f"{what}: {listed(names)}" for what, names in lists if names)
    text = f" ({text})" if text else ""
    if held is not None:
        mend = "give a file of that network, or choose the network of this file"
        return f"{where}: holds {held}, not {wanted}; {mend}{text}"
    return f"{where}: is not a complete {wanted} of these widths; give a complete file{text}"


def _reference_shape(weight: keras.Variable) -> list[int]:
    """The shape of one of our weights in PyTorch's layout."""
    shape = tuple(weight.shape)
    return [shape[axis] for axis in (3, 2, 0, 1)] if len(shape) == 4 else list(shape)
