"""Degradations (blur, noise, cutout, JPEG, downscaling), for domain randomisation and for restoration.

By default only the input is degraded. With `on="both"`, both images get the same random draw.

Each takes a strength, a float32 scalar in [0, 1], by which the parameters drawn from the settings are
multiplied (their distance from what changes nothing). At 0 an image stays the same, bit for bit; None is 1.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from data.augmentation import base, colour, filtering
from data.errors import DataError


class Blur(NamedTuple):
    """Parameters of a blur: whether it happens (bool), standard deviation in pixels (float32); scalars."""

    happens: tf.Tensor
    sigma: tf.Tensor


class Grain(NamedTuple):
    """Parameters of noise: float32 scalars, but `happens` is bool and `seed` int64 [2]."""

    happens: tf.Tensor
    sigma: tf.Tensor
    gain: tf.Tensor
    seed: tf.Tensor


class Squares(NamedTuple):
    """Squares in pixels, int32 [holes], partly outside the image or not; `happens` is a bool scalar."""

    happens: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    side: tf.Tensor


class Compression(NamedTuple):
    """Parameters of a compression: whether it happens (bool), quality (int32); scalars."""

    happens: tf.Tensor
    quality: tf.Tensor


class Shrinking(NamedTuple):
    """Parameters of downscaling: whether it happens (bool), factor (float32); scalars."""

    happens: tf.Tensor
    factor: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """Blurs as `scipy.ndimage.gaussian_filter(mode="reflect", truncate=4)` does, each channel alike.

    Attributes:
      sigma: smallest and largest standard deviation in pixels; uniform.
      probability: that an example is blurred, from 0 to 1.
      on: "both", "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    probability: float = 1.0
    on: str = "input"

    def __post_init__(self) -> None:
        base.check_range(self, "sigma", minimum=0)
        base.check_choice(self)

    def draw(self, seed: tf.Tensor, strength: tf.Tensor | None = None) -> Blur:
        """Draws the parameters, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        sigma = base.weakened(base.uniform(seeds[1], self.sigma), strength)
        return Blur(base.happens(seeds[0], self.probability, strength), sigma)

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, strength: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed, strength)
        return base.change_if(
            drawn.happens, images, lambda image: filtering.gaussian_blur(image, drawn.sigma), self.on
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """Adds Gaussian noise, independent from pixel to pixel and channel to channel, and clips.

    The variance at intensity x is sigma^2 + gain x: read noise and, if `gain` is not 0, the shot noise of
    a sensor (Foi et al. 2008, doi:10.1109/TIP.2008.2001399; 1 / gain is the number of electrons
    at x = 1). With `on="both"` channel c gets the same standard normal numbers in both images.

    Attributes:
      sigma: smallest and largest standard deviation, for images in [0, 1]; uniform.
      gain: smallest and largest variance added at intensity 1; uniform.
      probability: that an example gets noise, from 0 to 1.
      on: "both", "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    sigma: tuple[float, float] = (0.0, 0.05)
    gain: tuple[float, float] = (0.0, 0.0)
    probability: float = 1.0
    on: str = "input"

    def __post_init__(self) -> None:
        base.check_range(self, "sigma", minimum=0)
        base.check_range(self, "gain", minimum=0)
        if not (self.sigma[1] or self.gain[1]):
            raise DataError("Noise.sigma and Noise.gain are both (0, 0): raise one, or leave Noise out")
        base.check_choice(self)

    def draw(self, seed: tf.Tensor, strength: tf.Tensor | None = None) -> Grain:
        """Draws the parameters, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 4))
        return Grain(
            base.happens(seeds[0], self.probability, strength),
            base.weakened(base.uniform(seeds[1], self.sigma), strength),
            # A variance: so the deviation is proportional to the strength.
            base.weakened(base.weakened(base.uniform(seeds[2], self.gain), strength), strength),
            seeds[3],
        )

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, strength: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed, strength)

        def noisy(image: tf.Tensor) -> tf.Tensor:
            # One noise field per channel, so that grey images get the field of the first channel of RGB ones.
            seeds = (tf.random.fold_in(drawn.seed, tf.constant(c, tf.int64)) for c in range(image.shape[-1]))
            normal = tf.stack([tf.random.stateless_normal(tf.shape(image)[:2], s) for s in seeds], axis=-1)
            deviation = (
                tf.square(drawn.sigma) if self.gain[1] == 0 else tf.square(drawn.sigma) + drawn.gain * image
            )
            return tf.clip_by_value(image + tf.sqrt(deviation) * normal, 0.0, 1.0)

        return base.change_if(drawn.happens, images, noisy, self.on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutout:
    """Replaces squares of the image with a grey level: DeVries and Taylor 2017, arXiv:1708.04552.

    The centres are uniform over the image, so a square can extend beyond its border.

    Attributes:
      side: smallest and largest edge of a square as a fraction of the image's shorter edge; evenly
        distributed.
      holes: number of squares.
      fill: grey level of the squares, from 0 to 1, in all channels.
      probability: that an example gets squares, from 0 to 1.
      on: "both" (at the same places), "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    side: tuple[float, float] = (0.1, 0.3)
    holes: int = 1
    fill: float = 0.5
    probability: float = 1.0
    on: str = "input"

    def __post_init__(self) -> None:
        base.check_range(self, "side", minimum=0, maximum=1)
        base.check_whole_number(self, "holes", minimum=1)
        base.check_number(self, "fill", minimum=0, maximum=1)
        base.check_choice(self)

    def draw(
        self, seed: tf.Tensor, height: tf.Tensor, width: tf.Tensor, strength: tf.Tensor | None = None
    ) -> Squares:
        """Draws squares in an image of that size, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 4))
        shorter = tf.cast(tf.minimum(height, width), tf.float32)
        edges = base.weakened(base.uniform(seeds[1], self.side, [self.holes]), strength)
        edges = tf.cast(tf.round(edges * shorter), tf.int32)  # [holes]
        rows = tf.random.stateless_uniform([self.holes], seeds[2], 0, height, tf.int32)
        columns = tf.random.stateless_uniform([self.holes], seeds[3], 0, width, tf.int32)
        happens = base.happens(seeds[0], self.probability, strength)
        return Squares(happens, rows - edges // 2, columns - edges // 2, edges)

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, strength: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        height, width = tf.unstack(tf.shape(next(iter(images.values())))[:2])
        drawn = self.draw(seed, height, width, strength)

        def inside(begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            offset = tf.range(size) - begin[:, None]  # [holes, size]
            return (offset >= 0) & (offset < drawn.side[:, None])

        def cut(image: tf.Tensor) -> tf.Tensor:
            hidden = inside(drawn.top, height)[:, :, None] & inside(drawn.left, width)[:, None, :]
            hidden = tf.reduce_any(hidden, axis=0)[:, :, None]  # [H, W, 1]
            return tf.where(hidden, tf.constant(self.fill, tf.float32), image)

        return base.change_if(drawn.happens, images, cut, self.on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JpegCompression:
    """Rounds to 8 bits, then encodes and decodes as JPEG (4:2:0), as libjpeg does.

    An alpha channel (the last of 2 or 4) stays unchanged. At any strength above 0, images are rounded to
    8 bits and lose detail of their colours.

    Attributes:
      quality: lowest and highest quality, integers from 1 to 100; uniform.
      probability: that an example is compressed, from 0 to 1.
      on: "both" (with the same quality), "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction), or an image has more than 4 channels (when
        called).
    """

    quality: tuple[int, int] = (30, 95)
    probability: float = 1.0
    on: str = "input"

    def __post_init__(self) -> None:
        base.check_range(self, "quality", minimum=1, maximum=100, whole=True)
        base.check_choice(self)

    def draw(self, seed: tf.Tensor, strength: tf.Tensor | None = None) -> Compression:
        """Draws the parameters, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        low, high = self.quality
        quality = tf.random.stateless_uniform([], seeds[1], low, high + 1, tf.int32)
        if strength is not None:
            quality = base.weakened(tf.cast(quality, tf.float32), strength, identity=100.0)
            quality = tf.cast(tf.round(quality), tf.int32)
        return Compression(base.happens(seeds[0], self.probability, strength), quality)

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, strength: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed, strength)

        def compressed(image: tf.Tensor) -> tf.Tensor:
            if image.shape[-1] > 4:
                raise DataError(
                    f"JpegCompression: JPEG does not take an image of {image.shape[-1]} channels; leave "
                    "JpegCompression out, or set JpegCompression.on to the other image"
                )
            return colour.on_colours(image, lambda x: _as_jpeg(x, drawn.quality))

        return base.change_if(drawn.happens, images, compressed, self.on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Downscale:
    """Shrinks the image and enlarges it again, both with `filtering.bicubic`.

    Attributes:
      factor: smallest and largest factor by which height and width shrink, at least 1; uniform. They are
        rounded to whole pixels, at least 1.
      probability: that an example is changed, from 0 to 1.
      on: "both" (by the same factor), "input" or "target".

    Raises:
      DataError: a setting cannot be used (at construction).
    """

    factor: tuple[float, float] = (1.0, 4.0)
    probability: float = 1.0
    on: str = "input"

    def __post_init__(self) -> None:
        base.check_range(self, "factor", minimum=1)
        base.check_choice(self)

    def draw(self, seed: tf.Tensor, strength: tf.Tensor | None = None) -> Shrinking:
        """Draws the parameters, for a seed int64 [2]."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        factor = base.weakened(base.uniform(seeds[1], self.factor), strength, identity=1.0)
        return Shrinking(base.happens(seeds[0], self.probability, strength), factor)

    def __call__(
        self, images: dict[str, tf.Tensor], seed: tf.Tensor, *, strength: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """{role: float32 [H, W, C] in [0, 1]} to the same, for a seed int64 [2]."""
        drawn = self.draw(seed, strength)

        def shrunk(image: tf.Tensor) -> tf.Tensor:
            size = tf.shape(image)[:2]
            small = tf.maximum(tf.round(tf.cast(size, tf.float32) / drawn.factor), 1.0)
            small = filtering.bicubic(image, **_height_and_width(tf.cast(small, tf.int32)))
            return filtering.bicubic(small, **_height_and_width(size))

        return base.change_if(drawn.happens, images, shrunk, self.on)


def _as_jpeg(image: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    grey_levels = tf.cast(tf.floor(image * 255.0 + 0.5), tf.uint8)
    encoded = tf.raw_ops.EncodeJpegVariableQuality(images=grey_levels, quality=quality)
    # TensorFlow's default inverse DCT is faster, but less accurate than that of other programs.
    decoded = tf.io.decode_jpeg(encoded, channels=image.shape[-1], dct_method="INTEGER_ACCURATE")
    return tf.cast(decoded, tf.float32) / 255.0


def _height_and_width(size: tf.Tensor) -> dict[str, tf.Tensor]:
    """Keyword arguments of `filtering.bicubic` for a size int32 [2]."""
    height, width = tf.unstack(size)
    return {"height": height, "width": width}
