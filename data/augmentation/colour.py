"""Colour augmentations (jitter, grey, inversion), as torchvision defines them.

Images of 1 channel are grey, those of 3 are RGB. With 2 or 4 channels the last one is alpha, which never
changes. Images of more channels have no colours: brightness, contrast and inversion change all their channels
alike; everything else raises a DataError.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from data.augmentation import base
from data.errors import DataError

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's; of ITU-R BT.601


class Jitter(NamedTuple):
    """Parameters of a colour jitter: float32 scalars, but `happens` is bool and `order` int32 [4]."""

    happens: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor  # as a fraction of the colour circle
    order: tf.Tensor  # a permutation of brightness, contrast, saturation, hue


def on_colours(image: tf.Tensor, change: Callable) -> tf.Tensor:
    """Changes an image float32 [H, W, C] except for its alpha channel, which it has if C is 2 or 4."""
    if image.shape[-1] not in (2, 4):
        return change(image)
    return tf.concat([change(image[..., :-1]), image[..., -1:]], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """Changes brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter.

    A factor f blends the image with a reference: f image + (1 - f) reference, clipped. The reference is black
    for brightness, the mean of the grey image for contrast (not rounded to a grey level), and the grey image
    for saturation. Hue is shifted in HSV. Grey images have neither saturation nor hue.

    Attributes:
      brightness: x; factors are uniform in [max(0, 1 - x), 1 + x]; 0 changes nothing.
      contrast: likewise.
      saturation: likewise.
      hue: x; shifts are uniform in [-x, x], where 1 is the whole colour circle; at most 0.5.
      probability: that an example is changed, from 0 to 1.
      on: "both" (the same change), "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction), or saturation or hue is to change in an image of
        more than 4 channels (when called).
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    probability: float = 1.0
    on: str = "both"

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            base.check_number(self, name, minimum=0)
        base.check_number(self, "hue", minimum=0, maximum=0.5)
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise DataError("ColourJitter: all its settings are 0; set one, or leave ColourJitter out")
        base.check_choice(self)

    def draw(self, seed: tf.Tensor) -> Jitter:
        """Draws the parameters, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 6))
        brightness, contrast, saturation = (
            base.uniform(seeds[k], (max(0.0, 1.0 - strength), 1.0 + strength))
            for k, strength in enumerate((self.brightness, self.contrast, self.saturation))
        )
        return Jitter(
            happens=base.happens(seeds[5], self.probability),
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=base.uniform(seeds[3], (-self.hue, self.hue)),
            order=tf.argsort(base.uniform(seeds[4], (0.0, 1.0), [4])),
        )

    def __call__(self, images: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed)

        def jittered(image: tf.Tensor) -> tf.Tensor:
            return on_colours(image, lambda colours: self._jittered(colours, drawn))

        return base.change_if(drawn.happens, images, jittered, self.on)

    def _jittered(self, image: tf.Tensor, drawn: Jitter) -> tf.Tensor:
        channels = image.shape[-1]
        if channels not in (1, 3) and (self.saturation or self.hue):
            raise DataError(
                f"ColourJitter: an image of {channels} channels has neither saturation nor hue; set "
                "ColourJitter.saturation = 0 and ColourJitter.hue = 0"
            )
        coloured = channels == 3
        changes = [
            (self.brightness, lambda x: _blend(x, 0.0, drawn.brightness)),
            (self.contrast, lambda x: _blend(x, tf.reduce_mean(_grey(x)), drawn.contrast)),
            (self.saturation and coloured, lambda x: _blend(x, _grey(x), drawn.saturation)),
            # Clips rounding errors of the conversion to HSV and back.
            (self.hue and coloured, lambda x: tf.clip_by_value(tf.image.adjust_hue(x, drawn.hue), 0.0, 1.0)),
        ]
        active_changes = [change if active else tf.identity for active, change in changes]

        def next_change(step: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            branches = [lambda change=change: change(image) for change in active_changes]
            return step + 1, tf.ensure_shape(tf.switch_case(drawn.order[step], branches), image.shape)

        # A loop: unrolled, the graph would contain each change four times.
        start = (tf.constant(0), image)
        return tf.while_loop(lambda step, _: step < len(active_changes), next_change, start)[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grey:
    """Makes images grey but keeps their channels: each becomes 0.2989 R + 0.587 G + 0.114 B.

    Attributes:
      probability: that an example is changed, from 0 to 1.
      on: "both", "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction), or an image has more than 4 channels (when
        called).
    """

    probability: float = 1.0
    on: str = "both"

    def __post_init__(self) -> None:
        base.check_choice(self)

    def draw(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws whether images become grey: a bool scalar, for a seed int64 [2]."""
        return base.happens(seed, self.probability)

    def __call__(self, images: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""

        def grey(image: tf.Tensor) -> tf.Tensor:
            if image.shape[-1] > 4:
                raise DataError(
                    f"Grey: an image of {image.shape[-1]} channels has no colours; leave Grey out, "
                    "or set Grey.on to the other image"
                )
            return on_colours(image, lambda x: tf.broadcast_to(_grey(x), tf.shape(x)))

        return base.change_if(self.draw(seed), images, grey, self.on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invert:
    """Inverts images: 1 - x.

    Attributes:
      probability: that an example is changed, from 0 to 1.
      on: "both", "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    probability: float = 1.0
    on: str = "both"

    def __post_init__(self) -> None:
        base.check_choice(self)

    def draw(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws whether images are inverted: a bool scalar, for a seed int64 [2]."""
        return base.happens(seed, self.probability)

    def __call__(self, images: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        return base.change_if(
            self.draw(seed), images, lambda image: on_colours(image, lambda x: 1.0 - x), self.on
        )


def _grey(image: tf.Tensor) -> tf.Tensor:
    """The grey image [H, W, 1] of RGB; other images unchanged."""
    if image.shape[-1] != 3:
        return image
    red, green, blue = tf.split(image, 3, axis=-1)
    weights = _GREY_WEIGHTS
    return weights[0] * red + weights[1] * green + weights[2] * blue


def _blend(image: tf.Tensor, reference: tf.Tensor | float, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(factor * image + (1.0 - factor) * reference, 0.0, 1.0)
