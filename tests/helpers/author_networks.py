"""Networks of the authors of CUT and BicycleGAN in PyTorch, written anew from their published structure.

Makes tests/goldens/author_networks.npz: random weights under the names that the authors' code gives them, in
float16, and every third row and column of PyTorch's outputs for inputs of a fixed rule. Needs PyTorch, which
the tests do not:

  python -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy
  /tmp/torch/bin/python -m tests.helpers.author_networks

Sources: taesungp/contrastive-unpaired-translation and junyanz/BicycleGAN, models/networks.py.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

GOLDEN = Path(__file__).parents[1] / "goldens" / "author_networks.npz"
CODE = 3


def norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels)


class CutBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(), *other)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class CutGenerator(nn.Module):
    """ResnetGenerator without antialiasing."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), norm(width), nn.ReLU()]
        for n in (1, 2):
            channels = width * 2**n
            layers += [nn.Conv2d(channels // 2, channels, 3, 2, 1), norm(channels), nn.ReLU()]
        layers += [CutBlock(4 * width) for _ in range(blocks)]
        for n in (1, 0):
            channels = width * 2**n
            layers += [
                nn.ConvTranspose2d(2 * channels, channels, 3, 2, 1, output_padding=1),
                norm(channels),
                nn.ReLU(),
            ]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class PatchProjector(nn.Module):
    """The perceptrons of PatchSampleF, before it scales the vectors to length 1."""

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        for n, width in enumerate(widths):
            perceptron = nn.Sequential(nn.Linear(width, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
            self.add_module(f"mlp_{n}", perceptron)

    def forward(self, *features: torch.Tensor) -> list[torch.Tensor]:
        return [getattr(self, f"mlp_{n}")(x) for n, x in enumerate(features)]


def patches(channels: int, width: int) -> nn.Sequential:
    """The discriminator of one scale, with 3 layers."""
    layers = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n in (1, 2, 3):
        layers += [nn.Conv2d(width * 2 ** (n - 1), width * 2**n, 4, 2 if n < 3 else 1, 1), norm(width * 2**n)]
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class ScaledPatches(nn.Module):
    """D_NLayersMulti with two scales."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model_0, self.model_1 = patches(3, width), patches(3, width // 2)
        self.down = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.model_0(x), self.model_1(self.down(x))]


def tiled(x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """The picture with the code as further channels."""
    return torch.cat([x, code[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class CodedLevel(nn.Module):
    """UnetBlock_with_z: a level of the U-Net that gets the code at every downsampling."""

    def __init__(
        self, outer: int, given: int, inner: int, submodule: nn.Module | None, *, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        down = nn.Conv2d(given + CODE, inner, 4, 2, 1)
        up = nn.ConvTranspose2d(inner * (1 if submodule is None else 2), outer, 4, 2, 1)
        if first:
            self.down, self.up = nn.Sequential(down), nn.Sequential(nn.ReLU(), up, nn.Tanh())
        else:
            after = [] if submodule is None else [norm(inner)]
            self.down = nn.Sequential(nn.LeakyReLU(0.2), down, *after)
            self.up = nn.Sequential(nn.ReLU(), up, norm(outer))
        self.submodule = submodule

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        inside = self.down(tiled(x, code))
        result = self.up(inside if self.submodule is None else self.submodule(inside, code))
        return result if self.first else torch.cat([result, x], 1)


class PlainLevel(nn.Module):
    """UnetBlock: a level of the U-Net that gets the code at its input only."""

    def __init__(
        self, outer: int, given: int, inner: int, submodule: nn.Module | None, *, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        inside = [] if submodule is None else [submodule]
        down = nn.Conv2d(given, inner, 4, 2, 1)
        up = nn.ConvTranspose2d(inner * (1 if submodule is None else 2), outer, 4, 2, 1)
        if first:
            self.model = nn.Sequential(down, *inside, nn.ReLU(), up, nn.Tanh())
        else:
            after = [] if submodule is None else [norm(inner)]
            self.model = nn.Sequential(nn.LeakyReLU(0.2), down, *after, *inside, nn.ReLU(), up, norm(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) if self.first else torch.cat([self.model(x), x], 1)


def levels(kind: type[nn.Module], width: int, depth: int, inputs: int) -> nn.Module:
    """A U-Net: the levels from the innermost out."""
    widths = [width * min(2**n, 8) for n in range(depth)]
    inside = None
    for n in range(depth - 1, 0, -1):
        inside = kind(widths[n - 1], widths[n - 1], widths[n], inside, first=False)
    return kind(3, inputs, widths[0], inside, first=True)


class GeneratorAddAll(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.model = levels(CodedLevel, width, depth, 3)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return self.model(x, code)


class GeneratorAddInput(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.model = levels(PlainLevel, width, depth, 3 + CODE)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return self.model(tiled(x, code))


class EncoderBlock(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        pooled = nn.Sequential(nn.Conv2d(given, width, 3, 1, 1), nn.AvgPool2d(2))
        self.conv = nn.Sequential(
            norm(given),
            nn.LeakyReLU(0.2),
            nn.Conv2d(given, given, 3, 1, 1),
            norm(given),
            nn.LeakyReLU(0.2),
            pooled,
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(given, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.shortcut(x)


class Encoder(nn.Module):
    """E_ResNet with a head for the variance; images of 2**(levels + 3) pixels."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, width, 4, 2, 1)]
        for n in range(1, levels):
            layers += [EncoderBlock(width * min(4, n), width * min(4, n + 1))]
        last = width * min(4, levels)
        self.fc, self.fcVar = (nn.Sequential(nn.Linear(last, CODE)) for _ in range(2))
        self.conv = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.AvgPool2d(8))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        flat = self.conv(x).flatten(1)
        return [self.fc(flat), self.fcVar(flat)]


def given(shape: tuple[int, ...]) -> torch.Tensor:
    """An input of a network: the same numbers from -1 to 1 for the same shape, with NumPy alone."""
    numbers = np.sin(np.arange(math.prod(shape)) * 1.7) * np.cos(np.arange(math.prod(shape)) * 0.013)
    return torch.tensor(numbers.reshape(shape).astype(np.float32))


def images(size: int) -> torch.Tensor:
    return given((2, 3, size, size))


def main() -> None:
    """Writes the goldens."""
    torch.manual_seed(0)
    features = [given((2, 5, width)) for width in (3, 4, 8)]
    networks: dict[str, tuple[nn.Module, list[torch.Tensor]]] = {
        "cut_generator": (CutGenerator(1, 6), [images(16)]),
        "cut_discriminator": (nn.ModuleDict({"model": patches(3, 1)}), [images(32)]),
        "cut_projector": (PatchProjector((3, 4, 8), 6), features),
        "bicycle_add_all": (GeneratorAddAll(1, 6), [images(64), given((2, CODE))]),
        "bicycle_add_input": (GeneratorAddInput(1, 6), [images(64), given((2, CODE))]),
        "bicycle_encoder": (Encoder(2, 3), [images(64)]),
        "bicycle_discriminators": (ScaledPatches(2), [images(48)]),
    }
    arrays: dict[str, np.ndarray] = {}
    for name, (network, inputs) in networks.items():
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_((torch.randn_like(parameter) * 0.3).half().float())
            run = network["model"] if isinstance(network, nn.ModuleDict) else network
            outputs = run(*inputs)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        for n, tensor in enumerate(outputs):
            array = tensor.numpy()
            arrays[f"{name}/output_{n}"] = array[..., ::3, ::3] if array.ndim == 4 else array
        for key, value in network.state_dict().items():
            arrays[f"{name}/state/{key}"] = value.numpy().astype(np.float16)
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
