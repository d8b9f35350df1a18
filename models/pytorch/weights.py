"""Weights of the reference's networks into ours and back, complete or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from engine.errors import ConfigurationError
from models.networks.generators import REFERENCE_GENERATORS, build_generator
from models.pytorch.architecture import Structure, generator_structure, structure_of_file, structure_of_model
from models.pytorch.parameter_names import to_keras_layout
from models.pytorch.state_dict_file import read_state_dict, write_state_dict

_LISTED = 30  # names of a list in an error; a wrong network differs in hundreds


def load_generator(
    path: str, *, network: str | None = None, inference_norm: str = "batch_statistics"
) -> tuple[str, keras.Model]:
    """The generator of a file of the reference, its width, channels and norm read from the file.

    Args:
      network: a key of REFERENCE_GENERATORS that it has to be; None takes what it is.
      inference_norm: as of `models.networks.generators.build_generator`.

    Returns:
      The network's key in REFERENCE_GENERATORS, and the model with its weights.

    Raises:
      ConfigurationError: unknown network, or the file does not hold it completely and only it.
    """
    if network is not None and network not in REFERENCE_GENERATORS:
        raise ConfigurationError(
            f"--network={network}: unknown; choose one of: {', '.join(REFERENCE_GENERATORS)}"
        )
    arrays = read_state_dict(path)
    structure = structure_of_file(_shapes(arrays))
    held = structure.network if structure else None
    wanted = network or held
    if wanted not in REFERENCE_GENERATORS:
        raise ConfigurationError(
            f"{path}: holds {structure or 'no network of the reference'}, no generator that is here "
            f"({', '.join(REFERENCE_GENERATORS)}); it holds: {_list(arrays)}"
        )
    if held != wanted:
        norm = structure.norm if structure else "batch"
        raise ConfigurationError(
            _misfit(path, generator_structure(wanted, norm=norm), arrays, held=structure)
        )
    missing, surplus = _differences(structure, arrays)
    if missing or surplus:
        raise ConfigurationError(_misfit(path, structure, arrays))
    try:
        widths = structure.widths(_shapes(arrays))
    except ValueError as error:
        raise ConfigurationError(
            f"{path}: {error}, so it is no complete {structure}; copy it again"
        ) from error
    model = build_generator(
        held,
        name=held,
        **widths,
        norm=structure.norm,
        dropout=structure.dropout,
        inference_norm=inference_norm,
    )
    set_weights(model, fitting_weights(model, arrays, where=path))
    return held, model


def fitting_weights(
    model: keras.Model, arrays: Mapping[str, np.ndarray], *, where: str
) -> dict[str, np.ndarray]:
    """The reference's parameters as weights of the model.

    Args:
      arrays: by the reference's names, in its layouts.
      where: named in errors.

    Returns:
      Path of each of the model's weights -> array in our layout.

    Raises:
      ConfigurationError: it is another network, or keys are missing or too many, or shapes differ.
    """
    wanted = _counterpart(model)
    held = structure_of_file(_shapes(arrays))
    # Dropout has no weights: only the numbers in the names depend on it.
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
            f"{where}: holds numbers that are not finite in {_list(broken)}; take an earlier checkpoint"
        )
    # The reference has no biases in a network without norm; ours do nothing at zero.
    return {
        path: found[path] if path in found else np.zeros(weight.shape) for path, weight in weights.items()
    }


def set_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Assigns every weight of the model by its path."""
    for weight in model.weights:
        weight.assign(weights[weight.path])


def save_reference(model: keras.Model, path: str) -> None:
    """Writes a network as a .pth file that the reference loads as one of its own.

    Raises:
      ConfigurationError: the reference has no such network, or the file cannot be written.
    """
    write_state_dict(path, reference_arrays(model))


def reference_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """The model's weights by the reference's names, in its layouts, float32.

    `num_batches_tracked` is 0: the reference uses it nowhere, but expects it.

    Raises:
      ConfigurationError: the reference has no such network.
    """
    structure = _counterpart(model)
    weights = {weight.path: np.asarray(weight.numpy(), np.float32) for weight in model.weights}
    arrays = {}
    for name, path in structure.parameters().items():
        array = weights.pop(path)
        arrays[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        if name.endswith(".running_var"):
            arrays[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    biased = [path for path, array in weights.items() if np.any(array)]
    if biased:
        raise ConfigurationError(
            f"{model.name}: the reference's networks without norm have no biases, where this one has "
            f"learned {_list(biased)}; it cannot be written for the reference"
        )
    return arrays


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _counterpart(model: keras.Model) -> Structure:
    """The network of the reference with exactly this model's weights."""
    structure = structure_of_model(model)
    paths = {weight.path for weight in model.weights}
    if structure is not None:
        theirs = set(structure.parameters().values())
        if structure.norm == "none":
            paths -= {path for path in paths if path.endswith("/bias") and path not in theirs}
    if structure is None or paths != theirs:
        raise ConfigurationError(
            f"{model.name}: the reference has no such network, so neither has its format; those of "
            "models/networks/unet.py, resnet.py and patchgan.py can be exchanged"
        )
    return structure


def _differences(structure: Structure, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """Names that are missing, and names that are too many."""
    expected = structure.parameters()
    ignored = {f"{module}.num_batches_tracked" for module in structure.norms()}
    if structure.norm == "instance":  # PyTorch 0.3 stored statistics that it did not use
        ignored |= {f"{module}.running_{what}" for module in structure.norms() for what in ("mean", "var")}
    surplus = [name for name in arrays if name not in expected and name not in ignored]
    return [name for name in expected if name not in arrays], surplus


def _misfit(
    where: str,
    wanted: Structure,
    arrays: Mapping[str, np.ndarray],
    *,
    held: Structure | None = None,
    wrong_shapes: Iterable[str] = (),
) -> str:
    """One line: what does not fit, and how to mend it. `held` is given where it is another network."""
    missing, surplus = _differences(wanted, arrays)
    lists = (("missing", missing), ("too many", surplus), ("of another shape", wrong_shapes))
    text = "; ".join(f"{what}: {_list(names)}" for what, names in lists if names)
    if held is not None:
        return f"{where}: holds {held}, not {wanted}; give its file, or set the network to the file's. {text}"
    return f"{where}: is not a complete {wanted} of these widths; give a whole one. {text}"


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _reference_shape(weight) -> list[int]:
    shape = tuple(weight.shape)
    return [shape[axis] for axis in (3, 2, 0, 1)] if len(shape) == 4 else list(shape)
