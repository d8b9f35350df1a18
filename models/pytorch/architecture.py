"""Recognises the architecture of a file of the reference, or of one of our models.

The reference (pytorch-CycleGAN-and-pix2pix) stores weights without a description. Family, depth, norm and
widths follow from the names and shapes of the parameters. Dropout in a U-Net does not: it changes neither.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import keras

from models.networks.dropout import Dropout
from models.networks.norms import BatchNorm, InstanceNorm
from models.pytorch import parameter_names

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a parameter in the reference -> its shape in PyTorch's layout."""

# These have a bias with every norm; the other convolutions only without batch norm.
_ALWAYS_BIASED = {
    "unet": ("up_1_conv",),
    "resnet": ("last_conv",),
    "patchgan": ("conv_0", "logits"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network of the reference without its widths.

    Attributes:
      family: "unet", "resnet" or "patchgan".
      depth: downsamplings of a U-Net, blocks of a ResNet, layers of a PatchGAN.
      norm: "batch", "instance" or "none".
      dropout: whether a ResNet has dropout, which shifts the numbers of the reference's modules.
    """

    family: str
    depth: int
    norm: str
    dropout: bool = False

    @property
    def network(self) -> str:
        """Name of the network; for a generator as in `models.networks.generators.REFERENCE_GENERATORS`.

        A generator with an unusual depth has such a name too, but is not in REFERENCE_GENERATORS.
        """
        return {
            "unet": f"unet_{2**self.depth}",
            "resnet": f"resnet_{self.depth}blocks",
            "patchgan": f"patchgan of {self.depth} layers",
        }[self.family]

    def __str__(self) -> str:
        norm = "without norm" if self.norm == "none" else f"with {self.norm} norm"
        return f"{self.network} {norm}"

    def layers(self) -> dict[str, str]:
        """The reference's module -> our layer."""
        match self.family:
            case "unet":
                return parameter_names.unet_layers(downsamplings=self.depth)
            case "resnet":
                return parameter_names.resnet_layers(blocks=self.depth, dropout=self.dropout)
            case _:
                return parameter_names.patchgan_layers(layers=self.depth)

    def convolutions(self, *, always_biased: bool) -> list[str]:
        """The reference's convolutions that have a bias with every norm, or all others."""
        biased = _ALWAYS_BIASED[self.family]
        layers = {module: layer for module, layer in self.layers().items() if "norm" not in layer}
        return [module for module, layer in layers.items() if (layer in biased) == always_biased]

    def norms(self) -> list[str]:
        """The reference's norms."""
        return [module for module, layer in self.layers().items() if "norm" in layer]

    def parameters(self) -> dict[str, str]:
        """The reference's name of each parameter and statistic -> the path of our variable.

        Does not list `num_batches_tracked`, which we do not need.
        """
        always, sometimes = (self.convolutions(always_biased=biased) for biased in (True, False))
        names = [f"{module}.weight" for module in always + sometimes]
        names += [f"{module}.bias" for module in always]
        if self.norm == "instance":
            names += [f"{module}.bias" for module in sometimes]
        if self.norm == "batch":
            of_norm = parameter_names.PARAMETERS["norm"]
            names += [f"{module}.{name}" for module in self.norms() for name in of_norm]
        layers = self.layers()
        paths = {name: path for name in names if (path := parameter_names.variable_path(name, layers))}
        order = list(layers.values())
        return dict(sorted(paths.items(), key=lambda item: order.index(item[1].partition("/")[0])))

    def widths(self, shapes: Shapes) -> dict[str, int]:
        """Reads the widths off the shapes of the parameters.

        Also checks the widest convolution of a generator, so that a network of these widths is no larger
        than the parameters: a small file cannot make us build a huge network.

        Returns:
          `filters`, `input_channels` and `output_channels` (1 for a discriminator).

        Raises:
          KeyError: a convolution is missing.
          ValueError: a shape does not belong to such a network.
        """
        modules = {layer: module for module, layer in self.layers().items()}

        def channels(layer: str) -> tuple[int, int]:
            shape = shapes[f"{modules[layer]}.weight"]
            if len(shape) != 4 or min(shape) < 1:
                raise ValueError(f"{modules[layer]}.weight {list(shape)} is no convolution")
            return shape[0], shape[1]

        first, last, widest, growth = {
            "unet": ("down_1_conv", "up_1_conv", f"down_{self.depth}_conv", 8),
            "resnet": ("first_conv", "last_conv", "block_1_conv_1", 4),
        }.get(self.family, ("conv_0", "logits", "", 0))
        filters, input_channels = channels(first)
        if widest and channels(widest) != (growth * filters, growth * filters):
            name = f"{modules[widest]}.weight"
            raise ValueError(f"{name} {list(shapes[name])} is not that of {filters} filters")
        # Transposed convolutions are (in, out, h, w).
        output_channels = channels(last)[1 if self.family == "unet" else 0]
        return {"filters": filters, "input_channels": input_channels, "output_channels": output_channels}


def generator_architecture(network: str, *, norm: str) -> Architecture:
    """The architecture of a generator without dropout.

    Args:
      network: its name, such as "unet_256" or "resnet_9blocks".
      norm: "batch", "instance" or "none".
    """
    family, _, size = network.partition("_")
    if family == "unet":
        return Architecture(family=family, depth=int(size).bit_length() - 1, norm=norm)
    return Architecture(family=family, depth=int(size.removesuffix("blocks")), norm=norm)


_FAMILIES = {
    "unet": r"model\.model\.\d",
    "resnet": r"model\.\d+\.conv_block\.",
    "patchgan": r"model\.\d+\.(weight|bias)$",
}
"""Family -> a pattern that the name of one of its parameters matches; the first that does decides."""


def architecture_of_file(shapes: Shapes) -> Architecture | None:
    """Recognises the network that a file holds.

    Only some names decide, so that it also recognises a network with missing or surplus parameters.

    Returns:
      The architecture; None if the parameters belong to no network of the reference.
    """
    families = (f for f, pattern in _FAMILIES.items() if any(re.match(pattern, name) for name in shapes))
    family = next(families, None)
    depth = _DEPTHS[family](shapes) if family else None
    if family is None or depth is None:
        return None
    second_convolution = r"model\.\d+\.conv_block\.6\.weight"  # 5 without dropout, where 6 is a norm
    dropout = any(
        re.fullmatch(second_convolution, name) and len(shape) == 4 for name, shape in shapes.items()
    )
    architecture = Architecture(family=family, depth=depth, norm="batch", dropout=dropout)
    return dataclasses.replace(architecture, norm=_norm(architecture, shapes))


def _unet_depth(names: Iterable[str]) -> int | None:
    """Each level after the second adds one `.3.model` to the names."""
    inside = [name.count("3.model.") for name in names if name.startswith("model.model.1.model.")]
    return max(inside) + 2 if inside else None


def _resnet_depth(names: Iterable[str]) -> int | None:
    """The blocks are the reference's modules 10, 11, ..."""
    return max(int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.conv_block", name))) - 9


def _patchgan_depth(names: Iterable[str]) -> int | None:
    """The last convolution is module 3 * layers + 2."""
    last = max(int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.", name)))
    return (last - 2) // 3 if last >= 5 and last % 3 == 2 else None


_DEPTHS: Mapping[str, Callable[[Iterable[str]], int | None]] = {
    "unet": _unet_depth,
    "resnet": _resnet_depth,
    "patchgan": _patchgan_depth,
}
"""Family -> (names of parameters -> depth)."""


def _norm(architecture: Architecture, shapes: Shapes) -> str:
    if any(f"{module}.weight" in shapes for module in architecture.norms()):
        return "batch"
    # Without a norm, the reference gives these convolutions no biases, though they would be useful.
    biased = any(f"{module}.bias" in shapes for module in architecture.convolutions(always_biased=False))
    return "instance" if biased else "none"


def architecture_of_model(model: keras.Model) -> Architecture | None:
    """Recognises one of our models; None if the reference has no such network."""
    layers = {layer.name: layer for layer in model.layers}

    def largest_number(pattern: str) -> int:
        return max((int(match[1]) for name in layers if (match := re.fullmatch(pattern, name))), default=0)

    if "up_1_conv" in layers and "first_conv" not in layers:
        family, depth = "unet", largest_number(r"down_(\d+)_conv")
    elif "first_conv" in layers:
        family, depth = "resnet", largest_number(r"block_(\d+)_conv_1")
    elif "logits" in layers and "conv_0" in layers:
        family, depth = "patchgan", largest_number(r"conv_(\d+)")
    else:
        return None
    classes = {type(layer) for layer in model.layers}
    norm = "batch" if BatchNorm in classes else "instance" if InstanceNorm in classes else "none"
    dropout = family == "resnet" and Dropout in classes
    return Architecture(family=family, depth=depth, norm=norm, dropout=dropout)
