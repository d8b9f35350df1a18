"""From a picture to the pixels that `data.prepare` would have stored for the networks of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from data.description import ImageFormat
from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import ImageInfo
from data.formats.raw_video import VideoFormat
from data.imaging import OneHot
from data.tfrecords.image_encoding import StoredFormat, check_values, convert_pixels
from data.video.files import is_video_name

_WHOLE_UINT8, _WHOLE_UINT16 = (0, 255), (0, 65535)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture for a network.

    Attributes:
      pixels: [H, W, C], with the channels that the network takes.
      value_range: lowest and highest possible value of the pixels, which become -1 and 1.
      notes: how the file differs from what the network was trained on, for the user.
      alpha: transparency that the network does not take, float32 [H, W, 1] from 0 to 1 (opaque); None if
        there is none.
    """

    pixels: np.ndarray
    value_range: tuple[float, float]
    notes: tuple[str, ...] = ()
    alpha: np.ndarray | None = None


def read_picture(
    path: str,
    *,
    channels: int,
    trained: ImageFormat | None,
    classes: OneHot | None = None,
    keeps_alpha: bool = False,
) -> Picture:
    """Reads a picture as `data.prepare` would have read it for the network's data set.

    EXIF orientation is applied. Grey becomes colour, pictures without transparency become opaque, 8 bits
    become 16. Values keep the
    meaning that they had in training. A network for 8 bits also takes 16 bits, which keep their
    precision.

    Args:
      path: of the picture.
      channels: that the network takes.
      trained: how the data set stored its images; None if that is not known: then the whole range of 8 or 16
        bits becomes [-1, 1].
      classes: that the network takes one-hot; None if it takes values.
      keeps_alpha: whether transparency that the network does not take is kept apart; otherwise such a picture
        is refused.

    Raises:
      DataError: the picture cannot be read, or the network cannot take it.
    """
    if is_video_name(path):
        raise DataError(f"{path}: is a video among pictures; translate it alone, with --input={path}")
    info, pixels, _ = image_reader.decode(
        image_reader.ImageRef(path), video=VideoFormat(), max_pixels=image_reader.MAX_PIXELS
    )
    return as_picture(
        path,
        info,
        pixels,
        channels=channels,
        trained=trained,
        classes=classes,
        keeps_alpha=keeps_alpha,
    )


def as_picture(
    where: str,
    info: ImageInfo,
    pixels: np.ndarray,
    *,
    channels: int,
    trained: ImageFormat | None,
    classes: OneHot | None = None,
    keeps_alpha: bool = False,
) -> Picture:
    """Converts the pixels of a picture, wherever they come from; see `read_picture`.

    Args:
      where: named in errors, such as the path.
      info: what the pixels are.
      pixels: [H, W, C], of the dtype that `info` says.
      channels: as of `read_picture`.
      trained: likewise.
      classes: likewise.
      keeps_alpha: likewise.

    Raises:
      DataError: the network cannot take the picture.
    """
    takes_alpha = trained is not None and trained.alpha
    alpha = None
    if keeps_alpha and info.alpha and not takes_alpha and info.channels != channels:
        alpha = _fraction(pixels[..., -1:])
        pixels = pixels[..., :-1]
        info = dataclasses.replace(info, channels=info.channels - 1, alpha=False)
    _check_channels(where, info, channels, takes_alpha=takes_alpha)
    stored = _stored_format(where, info, channels, trained)
    notes = list(_differences(info, stored, trained))
    try:
        pixels = convert_pixels(pixels, info, stored)
        if stored.dtype == "float32":
            notes += _float_differences(pixels, stored)
        else:
            check_values(pixels, stored)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if classes is not None:
        low, high = stored.value_range
        if not np.any(classes.encode(pixels, low=low, high=high), axis=-1).all():
            notes.append("with pixels that are none of the classes of the training")
    return Picture(pixels=pixels, value_range=stored.value_range, notes=tuple(notes), alpha=alpha)


def _fraction(alpha: np.ndarray) -> np.ndarray:
    """Transparency of any dtype as float32 from 0 to 1."""
    highest = 1.0 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    return (alpha / highest).astype(np.float32)


def _check_channels(where: str, info: ImageInfo, wanted: int, *, takes_alpha: bool) -> None:
    """Raises DataError for a picture of other channels that cannot become those that the network takes."""
    if info.channels == wanted:
        return
    colours, wanted_colours = info.channels - info.alpha, wanted - takes_alpha
    is_picture = colours in (1, 3) and wanted_colours in (1, 3)
    if not is_picture or colours > wanted_colours or (info.alpha and not takes_alpha):
        what = f"{info.channels} channels" + (" with transparency" if info.alpha else "")
        raise DataError(f"{where}: has {what}, but the network takes {wanted}; convert it to {wanted}")


def _stored_format(where: str, info: ImageInfo, channels: int, trained: ImageFormat | None) -> StoredFormat:
    """The format in which the network takes the picture."""
    if trained is None:
        if info.value_range is None:
            raise DataError(
                f"{where}: has floating-point pixels, and nothing says which values were black and white in "
                "training; convert it to 16 bits"
            )
        return StoredFormat(channels=channels, dtype=info.dtype, value_range=info.value_range)
    dtype, value_range = trained.dtype, trained.value_range
    whole = tuple(value_range) == {"uint8": _WHOLE_UINT8, "uint16": _WHOLE_UINT16}.get(dtype)
    if whole and info.dtype == "uint16":
        dtype, value_range = "uint16", _WHOLE_UINT16
    elif info.dtype != dtype and not (whole and info.dtype == "uint8"):
        raise DataError(
            f"{where}: has {info.dtype} values, but the run was trained on {trained}, and how the two "
            "compare is not known; convert it to these values"
        )
    return StoredFormat(channels=channels, dtype=dtype, value_range=value_range)


def _differences(info: ImageInfo, stored: StoredFormat, trained: ImageFormat | None) -> Iterator[str]:
    """How a file differs from the format in which the network takes it."""
    if info.channels - info.alpha == 1 and stored.channels >= 3:
        yield "grey, repeated to 3 channels"
    if not info.alpha and trained is not None and trained.alpha and info.channels < stored.channels:
        yield "without transparency, made opaque"
    if info.dtype == "uint8" and stored.dtype == "uint16":
        yield "of 8 bits where training had 16, multiplied by 257"
    if trained is not None and trained.dtype == "uint8" and info.dtype == "uint16":
        yield "of 16 bits where training had 8, which keep their precision"


def _float_differences(pixels: np.ndarray, stored: StoredFormat) -> list[str]:
    """Checks float pixels; says whether they are outside the range of the training, which is no limit."""
    if not np.isfinite(pixels).all():
        raise DataError("has values that are not finite (NaN or infinity); mend or remove it")
    low, high = stored.value_range
    if low <= pixels.min() and pixels.max() <= high:
        return []
    return [f"with values outside {low:g} to {high:g}, the range of the training, which are not clipped"]
