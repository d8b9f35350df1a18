"""Brightness, contrast, saturation, hue; grey and inverted images: torchvision's definitions.

An image of 1 channel is grey, one of 3 is red, green, blue; with 2 or 4 channels the last is an alpha
channel, which is left as it is. Images of more channels have no colours: what needs none (brightness,
contrast, inversion) takes all their channels alike, the rest refuses them.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from data.augmentation import base
from data.errors import DataError

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's; of ITU-R BT.601


class Jitter(NamedTuple):
    """What is done to the colours: scalars, float32 but for `happens` (bool); `order` is int32 [4]."""

    happens: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor  # in turns of the colour circle
    order: tf.Tensor  # a permutation of brightness, contrast, saturation, hue


def on_colours(image, change: Callable):
    """Changes the colours of an image and keeps its alpha channel: float32 [H, W, C], C = 2 or 4 has one."""
    if image.shape[-1] not in (2, 4):
        return change(image)
    return tf.concat([change(image[..., :-1]), image[..., -1:]], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """Changes brightness, contrast, saturation and hue in random order: torchvision's ColorJitter.

    A factor f mixes the image with a reference: f image + (1 - f) reference, clipped. The reference is
    black for brightness, the mean of the grey image for contrast (not rounded to a grey level), the grey
    image itself for saturation. Hue is turned in HSV. Grey images have neither saturation nor hue.

    Attributes:
        brightness, contrast, saturation: factors are evenly distributed in [max(0, 1 - x), 1 + x]; 0
            leaves it as it is.
        hue: turns are evenly distributed in [-x, x], 1 being the whole colour circle; at most 0.5.
        probability: chance that an example is changed, from 0 to 1.
        on: "both" (the same change), "input" or "target".

    Raises:
        DataError: a setting cannot be used (at construction), or an image with more than 4 channels is
            to change in saturation or hue (when it is called).
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    probability: float = 1.0
    on: str = "both"

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            base.check_number(self, name, minimum=0)
        base.check_number(self, "hue", minimum=0, maximum=0.5)
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise DataError("ColourJitter: all its settings are 0; set one, or leave ColourJitter out.")
        base.check_choice(self)

    def draw(self, seed) -> Jitter:
        """The changes for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 6))
        factors = [
            base.uniform(factor_seed, (max(0.0, 1.0 - strength), 1.0 + strength))
            for factor_seed, strength in zip(
                seeds, (self.brightness, self.contrast, self.saturation), strict=False
            )
        ]
        return Jitter(
            base.happens(seeds[5], self.probability),
            *factors,
            base.uniform(seeds[3], (-self.hue, self.hue)),
            tf.argsort(base.uniform(seeds[4], (0.0, 1.0), [4])),
        )

    def __call__(self, images: dict[str, tf.Tensor], seed) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed)

        def jittered(image):
            return on_colours(image, lambda colours: self._jittered(colours, drawn))

        return base.change_if(drawn.happens, images, jittered, self.on)

    def _jittered(self, image, drawn):
        channels = image.shape[-1]
        if channels not in (1, 3) and (self.saturation or self.hue):
            raise DataError(
                f"ColourJitter: an image of {channels} channels has neither saturation nor hue; set "
                "ColourJitter.saturation = 0 and ColourJitter.hue = 0."
            )
        coloured = channels == 3
        changes = [
            (self.brightness, lambda x: _mixed(x, 0.0, drawn.brightness)),
            (self.contrast, lambda x: _mixed(x, tf.reduce_mean(_grey(x)), drawn.contrast)),
            (self.saturation and coloured, lambda x: _mixed(x, _grey(x), drawn.saturation)),
            # Rounding errors of the way to HSV and back are clipped.
            (self.hue and coloured, lambda x: tf.clip_by_value(tf.image.adjust_hue(x, drawn.hue), 0.0, 1.0)),
        ]
        changes = [change if active else tf.identity for active, change in changes]

        def next_change(place, image):
            branches = [lambda change=change: change(image) for change in changes]
            return place + 1, tf.ensure_shape(tf.switch_case(drawn.order[place], branches), image.shape)

        # A loop: unrolled, the graph would hold each change four times.
        start = (tf.constant(0), image)
        return tf.while_loop(lambda place, _: place < len(changes), next_change, start)[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grey:
    """Takes the colours out and keeps the channels: each is 0.2989 R + 0.587 G + 0.114 B.

    Grey images stay as they are.

    Attributes:
        probability: chance that an example is changed, from 0 to 1.
        on: "both", "input" or "target".

    Raises:
        DataError: a setting cannot be used (at construction), or an image has more than 4 channels (when
            it is called).
    """

    probability: float = 1.0
    on: str = "both"

    def __post_init__(self):
        base.check_choice(self)

    def draw(self, seed) -> tf.Tensor:
        """Whether the image becomes grey: a bool scalar, for a seed int64 [2]."""
        return base.happens(seed, self.probability)

    def __call__(self, images: dict[str, tf.Tensor], seed) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""

        def grey(image):
            if image.shape[-1] > 4:
                raise DataError(
                    f"Grey: an image of {image.shape[-1]} channels has no colours; leave Grey out, "
                    "or set Grey.on to the other image."
                )
            return on_colours(image, lambda x: tf.broadcast_to(_grey(x), tf.shape(x)))

        return base.change_if(self.draw(seed), images, grey, self.on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invert:
    """Makes a negative: 1 - x.

    Attributes:
        probability: chance that an example is changed, from 0 to 1.
        on: "both", "input" or "target".

    Raises:
        DataError: a setting cannot be used (at construction).
    """

    probability: float = 1.0
    on: str = "both"

    def __post_init__(self):
        base.check_choice(self)

    def draw(self, seed) -> tf.Tensor:
        """Whether the image is inverted: a bool scalar, for a seed int64 [2]."""
        return base.happens(seed, self.probability)

    def __call__(self, images: dict[str, tf.Tensor], seed) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        return base.change_if(
            self.draw(seed), images, lambda image: on_colours(image, lambda x: 1.0 - x), self.on
        )


def _grey(image):
    """[H, W, C] -> [H, W, 1] of colours, itself where there are none."""
    if image.shape[-1] != 3:
        return image
    red, green, blue = tf.split(image, 3, axis=-1)
    weights = _GREY_WEIGHTS
    return weights[0] * red + weights[1] * green + weights[2] * blue


def _mixed(image, reference, factor):
    return tf.clip_by_value(factor * image + (1.0 - factor) * reference, 0.0, 1.0)
