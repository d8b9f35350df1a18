"""The generators that a configuration can name, and the image sizes that they take."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

import keras

from engine.errors import ConfigurationError
from models.networks.conditioning import NO_SIDE_INPUTS, SideShapes
from models.networks.edsr import edsr
from models.networks.resnet import resnet
from models.networks.unet import unet


@dataclasses.dataclass(frozen=True)
class Generator:
    """How to build a generator, and which images it takes.

    Attributes:
      build: a function such as `models.networks.resnet.resnet`, with its size already set.
      size_multiple: height and width must be multiples of it, in pixels.
      smallest_size: smallest height and width, in pixels.
    """

    build: Callable[..., keras.Model]
    size_multiple: int
    smallest_size: int


def _unet(downsamplings: int) -> Generator:
    build = functools.partial(unet, downsamplings=downsamplings)
    return Generator(build, size_multiple=2**downsamplings, smallest_size=2**downsamplings)


def _resnet(blocks: int) -> Generator:
    # Reflection padding by one pixel at a quarter of the size needs two pixels there.
    return Generator(functools.partial(resnet, blocks=blocks), size_multiple=4, smallest_size=8)


def _edsr(blocks: int) -> Generator:
    return Generator(functools.partial(edsr, blocks=blocks), size_multiple=1, smallest_size=1)


REFERENCE_GENERATORS = {
    "unet_64": _unet(6),
    "unet_128": _unet(7),
    "unet_256": _unet(8),
    "resnet_6blocks": _resnet(6),
    "resnet_9blocks": _resnet(9),
}
"""The generators of the reference (pytorch-CycleGAN-and-pix2pix)."""

GENERATORS = {
    "unet_32": _unet(5),
    **REFERENCE_GENERATORS,
    "edsr_8blocks": _edsr(8),
    "edsr_16blocks": _edsr(16),
}
"""All generators; EDSR keeps the resolution throughout, for restoration."""


def _generator(network: str) -> Generator:
    if network not in GENERATORS:
        raise ConfigurationError(f"generator {network!r}: unknown; use one of {', '.join(GENERATORS)}")
    return GENERATORS[network]


def build_generator(
    network: str,
    *,
    name: str,
    input_channels: int,
    output_channels: int,
    filters: int = 64,
    norm: str,
    dropout: bool,
    inference_norm: str = "batch_statistics",
    side: SideShapes = NO_SIDE_INPUTS,
) -> keras.Model:
    """Builds a generator.

    Args:
      network: a key of GENERATORS.
      name: of the model.
      input_channels: of the images.
      output_channels: of the outputs.
      filters: channels of the first layer; those of the other layers are multiples of it.
      norm: one of `models.networks.norms.NORMS`.
      dropout: whether it has dropout.
      inference_norm: what batch norm uses outside training, one of `models.networks.norms.INFERENCE_NORMS`.
      side: sizes of additional inputs.

    Returns:
      A model from [B, H, W, input_channels] in [-1, 1] to [B, H, W, output_channels] in [-1, 1]; EDSR may
      exceed that range a little.

    Raises:
      ConfigurationError: a name is unknown, or the generator cannot take these additional inputs.
    """
    return _generator(network).build(
        name=name,
        input_channels=input_channels,
        output_channels=output_channels,
        filters=filters,
        norm=norm,
        dropout=dropout,
        inference_norm=inference_norm,
        side=side,
    )


def check_image_size(network: str, height: int, width: int, *, among: Iterable[str] = GENERATORS) -> None:
    """Checks that a generator takes images of this size.

    Args:
      network: a key of GENERATORS.
      height: of the images, in pixels.
      width: of the images, in pixels.
      among: the generators that the error may suggest instead.

    Raises:
      ConfigurationError: it does not, or it is unknown.
    """
    generator = _generator(network)
    multiple, smallest = generator.size_multiple, generator.smallest_size
    if all(size >= smallest and size % multiple == 0 for size in (height, width)):
        return
    fitting = [max(smallest, multiple * round(size / multiple)) for size in (height, width)]
    finer = [name for name in among if _generator(name).size_multiple < multiple]
    raise ConfigurationError(
        f"{network}: does not take images of {height}x{width} pixels (height x width), only multiples of "
        f"{multiple}, at least {smallest}; crop or resize them to {fitting[0]}x{fitting[1]}"
        + (f", or choose a network with a smaller multiple: {', '.join(finer)}" if finer else "")
    )
