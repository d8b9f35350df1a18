"""Names of the parameters in the reference's checkpoints, and the variables of our networks they belong to.

The reference (pytorch-CycleGAN-and-pix2pix) numbers the modules of a network by their positions in nested
`nn.Sequential`s. Activations, dropouts and norms without weights count, too. Each `..._layers` function maps
the dotted name of every PyTorch module that has parameters to the name of our layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

_LISTED = 30  # most names in an error

PARAMETERS = {
    "conv": {"weight": "kernel", "bias": "bias"},
    "norm": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}
"""Kind of layer -> name of its parameters in PyTorch -> name of our variable."""


def unet_layers(*, downsamplings: int) -> dict[str, str]:
    """PyTorch module -> layer of `models.networks.unet.unet`. Level k + 1 is nested inside level k."""
    layers = {"model.model.0": "down_1_conv", "model.model.3": "up_1_conv"}
    block = "model.model.1.model"
    for level in range(2, downsamplings):
        layers[f"{block}.1"] = f"down_{level}_conv"
        layers[f"{block}.2"] = f"down_{level}_norm"
        layers[f"{block}.5"] = f"up_{level}_conv"
        layers[f"{block}.6"] = f"up_{level}_norm"
        block = f"{block}.3.model"
    layers[f"{block}.1"] = f"down_{downsamplings}_conv"
    layers[f"{block}.3"] = f"up_{downsamplings}_conv"
    layers[f"{block}.4"] = f"up_{downsamplings}_norm"
    return layers


def resnet_layers(*, blocks: int, dropout: bool) -> dict[str, str]:
    """PyTorch module -> layer of `models.networks.resnet.resnet`."""
    layers = {}
    for position, name in ((1, "first"), (4, "down_1"), (7, "down_2")):
        layers[f"model.{position}"] = f"{name}_conv"
        layers[f"model.{position + 1}"] = f"{name}_norm"
    second = 6 if dropout else 5
    for block in range(1, blocks + 1):
        prefix, name = f"model.{9 + block}.conv_block", f"block_{block}"
        layers[f"{prefix}.1"] = f"{name}_conv_1"
        layers[f"{prefix}.2"] = f"{name}_1_norm"
        layers[f"{prefix}.{second}"] = f"{name}_conv_2"
        layers[f"{prefix}.{second + 1}"] = f"{name}_2_norm"
    for position, name in ((10 + blocks, "up_2"), (13 + blocks, "up_1")):
        layers[f"model.{position}"] = f"{name}_conv"
        layers[f"model.{position + 1}"] = f"{name}_norm"
    layers[f"model.{17 + blocks}"] = "last_conv"
    return layers


def patchgan_layers(*, layers: int = 3) -> dict[str, str]:
    """PyTorch module -> layer of `models.networks.patchgan.patchgan`."""
    names = {"model.0": "conv_0"}
    for layer in range(1, layers + 1):
        names[f"model.{3 * layer - 1}"] = f"conv_{layer}"
        names[f"model.{3 * layer}"] = f"norm_{layer}"
    return {**names, f"model.{3 * layers + 2}": "logits"}


def variable_path(torch_name: str, layers: Mapping[str, str]) -> str | None:
    """Returns the path of our variable for a parameter, such as "up_1_conv/kernel".

    Args:
      torch_name: name of the parameter in a checkpoint of the reference.
      layers: PyTorch module -> our layer, from one of the functions above.

    Returns:
      The path; None for "num_batches_tracked", which we do not need.

    Raises:
      KeyError: the network has no such parameter.
    """
    module, _, parameter = torch_name.rpartition(".")
    layer = layers[module]
    if parameter == "num_batches_tracked":
        return None
    kind = "norm" if "norm" in layer else "conv"
    return f"{layer}/{PARAMETERS[kind][parameter]}"


def to_keras_layout(array: np.ndarray) -> np.ndarray:
    """Transposes the kernel of a convolution from PyTorch's layout to that of Keras.

    (out, in, h, w) -> (h, w, in, out); for transposed convolutions (in, out, h, w) -> (h, w, out, in), which
    is the same permutation. Vectors stay as they are.
    """
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def listed(names: Iterable[str]) -> str:
    """Names for an error: the first of them, as a wrong network differs in hundreds."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
