"""The networks of pix2pix and CycleGAN in PyTorch, written anew from their published layer lists."""

import torch
from torch import nn


class UnetBlock(nn.Module):
    """One level of the U-Net: down, the levels below, up; beside it the skip connection."""

    def __init__(self, channels, inner, below, *, dropout):
        super().__init__()
        norm = [nn.BatchNorm2d(inner)] if below is not None else []
        self.down = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(channels, inner, 4, 2, 1, bias=False), *norm)
        self.below = below
        width = inner if below is None else 2 * inner
        up = [nn.ReLU(), nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.BatchNorm2d(channels)]
        self.up = nn.Sequential(*up, *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, x):
        y = self.down(x)
        return torch.cat([x, self.up(y if self.below is None else self.below(y))], 1)


class Unet(nn.Module):
    """A U-Net of `levels` halvings, 64 filters in the first."""

    def __init__(self, levels=8, filters=64):
        super().__init__()
        wide = 8 * filters
        block = UnetBlock(wide, wide, None, dropout=False)
        for _ in range(levels - 5):
            block = UnetBlock(wide, wide, block, dropout=True)
        for narrow, inner in ((4 * filters, wide), (2 * filters, 4 * filters), (filters, 2 * filters)):
            block = UnetBlock(narrow, inner, block, dropout=False)
        first, last = nn.Conv2d(3, filters, 4, 2, 1, bias=False), nn.ConvTranspose2d(2 * filters, 3, 4, 2, 1)
        self.layers = nn.Sequential(first, block, nn.ReLU(), last, nn.Tanh())

    def forward(self, x):
        return self.layers(x)


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3 with instance norm, added to their input."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            *_padded(channels, channels, 3), nn.ReLU(), *_padded(channels, channels, 3)
        )

    def forward(self, x):
        return x + self.layers(x)


def _padded(channels, filters, kernel):
    padding = nn.ReflectionPad2d(kernel // 2)
    return [padding, nn.Conv2d(channels, filters, kernel), nn.InstanceNorm2d(filters)]


def resnet(blocks=9, filters=64):
    """CycleGAN's generator."""
    layers = [*_padded(3, filters, 7), nn.ReLU()]
    for width in (filters, 2 * filters):
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU()]
    layers += [ResidualBlock(4 * filters) for _ in range(blocks)]
    for width in (4 * filters, 2 * filters):
        up = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1)
        layers += [up, nn.InstanceNorm2d(width // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(filters, 3, 7), nn.Tanh())


def patch_discriminator(channels, *, norm, filters=64):
    """A PatchGAN that sees 70x70 pixels; `norm` is a class of `torch.nn`."""
    has_bias = norm is nn.InstanceNorm2d
    layers = [nn.Conv2d(channels, filters, 4, 2, 1), nn.LeakyReLU(0.2)]
    for width, stride in ((filters, 2), (2 * filters, 2), (4 * filters, 1)):
        convolution = nn.Conv2d(width, 2 * width, 4, stride, 1, bias=has_bias)
        layers += [convolution, norm(2 * width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * filters, 1, 4, 1, 1))
