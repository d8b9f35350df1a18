"""Which network of the reference a file or one of our models is, told from names and shapes.

The reference (pytorch-CycleGAN-and-pix2pix) keeps no description beside its weights, so family, depth,
norm and widths are read off the parameters. One thing cannot be: dropout in a U-Net, which has none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import keras

from models.networks.layers import BatchNorm, InstanceNorm
from models.pytorch import parameter_names

Shapes = Mapping[str, tuple[int, ...]]

# These have a bias whatever the norm; the others only without batch norm.
_ALWAYS_BIASED = {
    "unet": ("up_1_conv",),
    "resnet": ("last_conv",),
    "patchgan": ("conv_0", "logits"),
    "pixel": ("conv_0",),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
    """A network of the reference, but for its widths.

    Args:
      family: "unet", "resnet", "patchgan" or "pixel".
      depth: downsamplings of a U-Net, blocks of a ResNet, layers of a PatchGAN; 0 for "pixel".
      norm: "batch", "instance" or "none".
      dropout: whether a ResNet has dropout, which shifts the reference's numbers of modules.
    """

    family: str
    depth: int
    norm: str
    dropout: bool = False

    @property
    def network(self) -> str:
        """Its name, of a generator the one in `models.networks.generators.REFERENCE_GENERATORS` if it is
        there."""
        return {
            "unet": f"unet_{2**self.depth}",
            "resnet": f"resnet_{self.depth}blocks",
            "patchgan": f"patchgan of {self.depth} layers",
            "pixel": "pixel discriminator",
        }[self.family]

    def __str__(self) -> str:
        return (
            f"{self.network} with {self.norm} norm" if self.norm != "none" else f"{self.network} without norm"
        )

    def layers(self) -> dict[str, str]:
        """The reference's module -> our layer."""
        return {
            "unet": lambda: parameter_names.unet_layers(downsamplings=self.depth),
            "resnet": lambda: parameter_names.resnet_layers(blocks=self.depth, dropout=self.dropout),
            "patchgan": lambda: parameter_names.patchgan_layers(layers=self.depth),
            "pixel": parameter_names.pixel_layers,
        }[self.family]()

    def convolutions(self, *, always_biased: bool) -> list[str]:
        """The reference's convolutions that have a bias whatever the norm, or those others."""
        biased = _ALWAYS_BIASED[self.family]
        layers = {module: layer for module, layer in self.layers().items() if "norm" not in layer}
        return [module for module, layer in layers.items() if (layer in biased) == always_biased]

    def norms(self) -> list[str]:
        """The reference's modules of norms."""
        return [module for module, layer in self.layers().items() if "norm" in layer]

    def parameters(self) -> dict[str, str]:
        """The reference's name of every parameter and statistic -> the path of our variable.

        Without `num_batches_tracked`, which nothing here needs.
        """
        names = [
            f"{module}.weight"
            for always in (True, False)
            for module in self.convolutions(always_biased=always)
        ]
        names += [f"{module}.bias" for module in self.convolutions(always_biased=True)]
        if self.norm == "instance":
            names += [f"{module}.bias" for module in self.convolutions(always_biased=False)]
        if self.norm == "batch":
            names += [
                f"{module}.{name}" for module in self.norms() for name in parameter_names.PARAMETERS["norm"]
            ]
        layers = self.layers()
        paths = {name: parameter_names.variable_path(name, layers) for name in names}
        order = list(layers.values())
        return dict(sorted(paths.items(), key=lambda item: order.index(item[1].partition("/")[0])))

    def widths(self, shapes: Shapes) -> dict[str, int]:
        """`filters`, `input_channels` and `output_channels` (1 of a discriminator) of these parameters.

        The widest convolution of a generator has to agree, so that a network built of these widths is no
        larger than the parameters.

        Raises KeyError if a convolution is missing, ValueError if one is of no such network.
        """
        modules = {layer: module for module, layer in self.layers().items()}

        def channels(layer: str) -> tuple[int, int]:
            shape = shapes[f"{modules[layer]}.weight"]
            if len(shape) != 4 or min(shape) < 1:
                raise ValueError(f"{modules[layer]}.weight {list(shape)} is no convolution's")
            return shape[0], shape[1]

        first, last, inner, growth = {
            "unet": ("down_1_conv", "up_1_conv", f"down_{self.depth}_conv", 8),
            "resnet": ("first_conv", "last_conv", "block_1_conv_1", 4),
        }.get(self.family, ("conv_0", "logits", None, 0))
        filters, input_channels = channels(first)
        if inner and channels(inner) != (growth * filters, growth * filters):
            name = f"{modules[inner]}.weight"
            raise ValueError(f"{name} {list(shapes[name])} is not that of {filters} filters")
        # Transposed convolutions are (in, out, h, w).
        output_channels = channels(last)[1 if self.family == "unet" else 0]
        return {"filters": filters, "input_channels": input_channels, "output_channels": output_channels}


def generator_structure(network: str, *, norm: str) -> Structure:
    """The structure of a generator without dropout by its name, such as "unet_256" or "resnet_9blocks"."""
    family, _, size = network.partition("_")
    if family == "unet":
        return Structure(family=family, depth=int(size).bit_length() - 1, norm=norm)
    return Structure(family=family, depth=int(size.removesuffix("blocks")), norm=norm)


def structure_of_file(shapes: Shapes) -> Structure | None:
    """The network whose parameters, by the reference's names, have these shapes; None if it is none.

    Single parameters may be missing or be too many: the outermost and innermost names decide.
    """
    families = {
        "unet": r"model\.model\.\d",
        "resnet": r"model\.\d+\.conv_block\.",
        "pixel": r"net\.\d",
        "patchgan": r"model\.\d+\.(weight|bias)$",
    }
    family = next(
        (f for f, pattern in families.items() if any(re.match(pattern, name) for name in shapes)), None
    )
    if family is None:
        return None
    depth = {"unet": _unet_depth, "resnet": _resnet_depth, "patchgan": _patchgan_depth}.get(
        family, lambda _: 0
    )(shapes)
    if depth is None:
        return None
    second_convolution = r"model\.\d+\.conv_block\.6\.weight"
    dropout = any(
        re.fullmatch(second_convolution, name) and len(shape) == 4 for name, shape in shapes.items()
    )
    structure = Structure(family=family, depth=depth, norm="batch", dropout=dropout)
    return dataclasses.replace(structure, norm=_norm(structure, shapes))


def _unet_depth(names: Iterable[str]) -> int | None:
    """Every level but the outermost and the next is one `.3.model` further inside."""
    inside = [name.count("3.model.") for name in names if name.startswith("model.model.1.model.")]
    return max(inside) + 2 if inside else None


def _resnet_depth(names: Iterable[str]) -> int:
    """The blocks are modules 10, 11, ... of the reference."""
    return max(int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.conv_block", name))) - 9


def _patchgan_depth(names: Iterable[str]) -> int | None:
    """The last convolution is module 3 layers + 2."""
    last = max(int(match[1]) for name in names if (match := re.match(r"model\.(\d+)\.", name)))
    return (last - 2) // 3 if last >= 5 and last % 3 == 2 else None


def _norm(structure: Structure, names: Iterable[str]) -> str:
    names = set(names)
    if any(f"{module}.weight" in names for module in structure.norms()):
        return "batch"
    # The reference has no biases without a norm, where it should.
    biased = any(f"{module}.bias" in names for module in structure.convolutions(always_biased=False))
    return "instance" if biased else "none"


def structure_of_model(model: keras.Model) -> Structure | None:
    """The network of the reference that a Keras model of ours is; None if it has no counterpart there."""
    layers = {layer.name: layer for layer in model.layers}

    def numbered(pattern):
        return max((int(match[1]) for name in layers if (match := re.fullmatch(pattern, name))), default=0)

    if "up_1_conv" in layers and "first_conv" not in layers:
        family, depth = "unet", numbered(r"down_(\d+)_conv")
    elif "first_conv" in layers:
        family, depth = "resnet", numbered(r"block_(\d+)_conv_1")
    elif "logits" in layers and "conv_0" in layers:
        pixel = layers["conv_0"].kernel_size == (1, 1)
        family, depth = ("pixel", 0) if pixel else ("patchgan", numbered(r"conv_(\d+)"))
    else:
        return None
    kinds = {type(layer) for layer in model.layers}
    norm = "batch" if BatchNorm in kinds else "instance" if InstanceNorm in kinds else "none"
    dropout = family == "resnet" and keras.layers.Dropout in kinds
    return Structure(family=family, depth=depth, norm=norm, dropout=dropout)
