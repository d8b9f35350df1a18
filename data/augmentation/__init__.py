"""Augmentations: settings as plain classes, which `augment` applies in the order of a list."""

from data.augmentation.colour import ColourJitter, Grey, Invert
from data.augmentation.compose import augment
from data.augmentation.degradation import Cutout, Downscale, GaussianBlur, JpegCompression, Noise
from data.augmentation.geometry import Crop, Flip, RandomResizedCrop, Rotation
from data.augmentation.random_degradations import RandomDegradations

__all__ = [
    "ColourJitter",
    "Crop",
    "Cutout",
    "Downscale",
    "Flip",
    "GaussianBlur",
    "Grey",
    "Invert",
    "JpegCompression",
    "Noise",
    "RandomDegradations",
    "RandomResizedCrop",
    "Rotation",
    "augment",
]
