"""The generators a configuration can name, and the picture sizes they take."""

import dataclasses
import functools
from collections.abc import Callable

import keras

from engine.errors import ConfigurationError
from models.networks.conditioning import SideShapes
from models.networks.edsr import edsr
from models.networks.resnet import resnet
from models.networks.unet import unet


@dataclasses.dataclass(frozen=True)
class Generator:
    """How to build a generator, and what height and width it takes (pixels)."""

    build: Callable[..., keras.Model]
    size_multiple: int
    smallest_size: int


def _unet(downsamplings):
    build = functools.partial(unet, downsamplings=downsamplings)
    return Generator(build, size_multiple=2**downsamplings, smallest_size=2**downsamplings)


def _resnet(blocks):
    # Reflecting one pixel at a quarter of the size needs two of them there.
    return Generator(functools.partial(resnet, blocks=blocks), size_multiple=4, smallest_size=8)


def _edsr(blocks):
    return Generator(functools.partial(edsr, blocks=blocks), size_multiple=1, smallest_size=1)


REFERENCE_GENERATORS = {
    "unet_64": _unet(6),
    "unet_128": _unet(7),
    "unet_256": _unet(8),
    "resnet_6blocks": _resnet(6),
    "resnet_9blocks": _resnet(9),
}
"""Those whose weights the reference (pytorch-CycleGAN-and-pix2pix) may have trained."""

GENERATORS = {
    "unet_32": _unet(5),
    **REFERENCE_GENERATORS,
    "edsr_8blocks": _edsr(8),
    "edsr_16blocks": _edsr(16),
}
"""All that a configuration can name; EDSR keeps the resolution throughout, for restoration."""


def _generator(network):
    if network not in GENERATORS:
        raise ConfigurationError(f"unknown network {network!r}; choose one of: {', '.join(GENERATORS)}")
    return GENERATORS[network]


def build_generator(
    network,
    *,
    name,
    input_channels,
    output_channels,
    filters=64,
    norm,
    dropout,
    inference_norm="batch_statistics",
    side=SideShapes(),  # noqa: B008, frozen
):
    """The generator called `network`, a key of GENERATORS, as a Keras model called `name`.

    It maps [B, H, W, input_channels] to [B, H, W, output_channels], in [-1, 1] but for EDSR, which may
    reach beyond that a little. `norm` is one of layers.NORMS, `inference_norm` one of
    layers.INFERENCE_NORMS (what batch norm uses when `training=False`), `side` what it
    gets beside its pictures. Raises ConfigurationError, listing the known names, for an unknown one.
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


def check_image_size(network, height, width, *, among=GENERATORS):
    """Raises ConfigurationError with the remedy if `network` does not take [height, width] pixels.

    `among` are the names it may advise instead.
    """
    generator = _generator(network)
    multiple, smallest = generator.size_multiple, generator.smallest_size
    if all(size >= smallest and size % multiple == 0 for size in (height, width)):
        return
    fitting = [max(smallest, multiple * round(size / multiple)) for size in (height, width)]
    finer = [name for name in among if _generator(name).size_multiple < multiple]
    raise ConfigurationError(
        f"{network} does not take pictures of {height}x{width} pixels (height x width): both must "
        f"be multiples of {multiple}, at least {smallest}; crop or resize them to "
        f"{fitting[0]}x{fitting[1]}"
        + (f", or choose a network with a smaller multiple: {', '.join(finer)}" if finer else "")
    )
