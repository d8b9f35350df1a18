"""Resizing with the pixels of Pillow, only of the part of an image that is needed.

Pictures are resized bicubically. Labels are images whose values are classes, which must not be mixed: each of
their pixels becomes the nearest stored one.

Resampling an axis is a product with a banded matrix: every output pixel is a weighted sum of a few inputs.
Outputs are computed in blocks that share one run of inputs, as small dense products. That is several times
faster than TensorFlow's own antialiased resize. As in Pillow, values are rounded after each of two passes;
`resize_window` says how far the results differ.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from data import imaging

_BLOCK = 16
"""Outputs per product: with more, most weights would be 0; with fewer, the products would be too small."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a resized image.

    Attributes:
      size: (height, width) in pixels to which the whole image would be resized.
      top: first row of the part in the resized image.
      left: first column of the part in the resized image.
      height: of the part.
      width: of the part.
      mirrored: mirror the part left and right.
      extent: float64 [2], (height, width) of a stored picture in its pixels, if its last row or column stands
        for a part of one only, as after decoding at a reduced scale; None if all are whole.
    """

    size: Sequence[int | tf.Tensor]
    top: int | tf.Tensor
    left: int | tf.Tensor
    height: int
    width: int
    mirrored: bool | tf.Tensor = False
    extent: tf.Tensor | None = None


def resize(
    image: tf.Tensor, *, height: int, width: int, is_labels: bool = False, extent: tf.Tensor | None = None
) -> tf.Tensor:
    """Resizes a whole image; see `resize_window`.

    Args:
      image: [H, W, C].
      height: new height in pixels.
      width: new width in pixels.
      is_labels: whether the image's values are classes.
      extent: as in `Window`.

    Returns:
      [height, width, C] of the same dtype.
    """
    whole = Window(size=(height, width), top=0, left=0, height=height, width=width, extent=extent)
    return resize_window((image,), whole, labels=(is_labels,))[0]


def resize_window(
    images: Sequence[tf.Tensor], window: Window, *, labels: Sequence[bool] = ()
) -> tuple[tf.Tensor, ...]:
    """Returns the same part of several images, as if they had been resized.

    Keys's cubic kernel with a = -0.5, widened (antialiasing) only along an axis that shrinks. The columns are
    resampled first, then the rows. Integers are rounded and clipped to their dtype after each pass, as Pillow
    does with 8 bits. float32 is neither rounded nor clipped.

    With 8 bits, a value differs from Pillow's by at most 2 levels: where a sum is near half a level, Pillow's
    fixed-point weights may round it the other way, in both passes. Measured on photos at 1,251 random sizes:
    by 1 level in 0.014 % of the values, by 2 in 0.0001 %. But Pillow 13 begins with the rows of some images
    whose height shrinks, which clips overshoots elsewhere: it differs on those photos by up to 11 levels (by
    more than 2 in 0.0003 % of the values), on black and white noise by up to 31.
    Labels keep their values: see `data.imaging.nearest_indices`.
    Images that have the size already are only cut. Resampling would give the same values: the kernel is 1 at
    the pixel itself and 0 at all others.

    Args:
      images: [H, W, C] each, of one H and W, uint8, uint16 or float32; C static.
      window: the part.
      labels: for each image, whether its values are classes; empty if those of none are.

    Returns:
      A tuple of [window.height, window.width, C] of the dtypes of `images`.
    """
    images = [tf.convert_to_tensor(image) for image in images]
    return tf.cond(
        tf.reduce_all(tf.equal(_extent(images[0], window), tf.cast(tf.stack(window.size), tf.float64))),
        lambda: cut_window(images, window),
        lambda: tuple(_sampled(images, window, labels or [False] * len(images))),
    )


def _extent(image: tf.Tensor, window: Window) -> tf.Tensor:
    """(height, width) of what an image shows, in its pixels: float64 [2]."""
    return tf.cast(tf.shape(image)[:2], tf.float64) if window.extent is None else window.extent


def _sampled(images: Sequence[tf.Tensor], window: Window, labels: Sequence[bool]) -> list[tf.Tensor]:
    """The window of each image, resampled; undefined where it lies outside the image."""
    pictures = [image for image, is_labels in zip(images, labels, strict=True) if not is_labels]
    resampled = iter(_bicubic(pictures, window) if pictures else ())
    return [
        _nearest(image, window) if is_labels else next(resampled)
        for image, is_labels in zip(images, labels, strict=True)
    ]


def _nearest(image: tf.Tensor, window: Window) -> tf.Tensor:
    """The window of an image of classes."""
    mirrored = tf.cast(window.mirrored, tf.int32)
    rows = window.top + tf.range(window.height)
    columns = window.left + mirrored * (window.width - 1) + (1 - 2 * mirrored) * tf.range(window.width)
    for axis, outputs in enumerate((rows, columns)):
        length, new_length = tf.shape(image)[axis], window.size[axis]
        indices = imaging.nearest_indices(outputs, length=length, new_length=new_length)
        image = tf.gather(image, indices, axis=axis)
    return tf.ensure_shape(image, [window.height, window.width, image.shape[-1]])


def _bicubic(images: Sequence[tf.Tensor], window: Window) -> list[tf.Tensor]:
    """The window of each picture."""
    mirrored = tf.cast(window.mirrored, tf.int32)
    inputs, weights = _banded_weights(
        lengths=tf.shape(images[0])[:2],
        extents=_extent(images[0], window),
        new_lengths=tf.stack(window.size),
        firsts=tf.stack([window.top, window.left + mirrored * (window.width - 1)]),
        steps=tf.stack([1, 1 - 2 * mirrored]),
        count=max(window.height, window.width),
    )
    return [_resampled(image, inputs, weights, window.height, window.width) for image in images]


def cut_window(images: Sequence[tf.Tensor], window: Window) -> tuple[tf.Tensor, ...]:
    """Cuts the same part out of several images that have window.size already."""
    corner, extent = [window.top, window.left, 0], [window.height, window.width]
    parts = []
    for image in images:
        part = tf.slice(image, corner, [*extent, image.shape[-1]])
        if window.mirrored is not False:
            # part[:, ::-1] would be 50 times slower.
            part = tf.cond(tf.cast(window.mirrored, tf.bool), lambda: tf.reverse(part, [1]), lambda: part)  # noqa: B023
        parts.append(tf.ensure_shape(part, [*extent, image.shape[-1]]))
    return tuple(parts)


def resize_with_pad(
    image: tf.Tensor,
    *,
    height: int,
    width: int,
    value: float,
    is_labels: bool = False,
    extent: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resizes to the largest size of the same aspect ratio that fits, and pads the rest evenly.

    Args:
      image: [H, W, C].
      height: new height in pixels, with padding.
      width: new width in pixels, with padding.
      value: of the padding.
      is_labels: whether the image's values are classes.
      extent: as in `Window`.

    Returns:
      [height, width, C] of the same dtype.
    """
    image = tf.convert_to_tensor(image)
    shown = tf.shape(image)[:2] if extent is None else extent
    inner = fitted_size(shown[0], shown[1], height, width)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    # Resampled over the whole result, whose size is static; the padding then replaces what is outside.
    canvas = Window(size=inner, top=-top, left=-left, height=height, width=width, extent=extent)
    row, column = tf.range(height)[:, None] - top, tf.range(width)[None] - left
    inside = (row >= 0) & (row < inner[0]) & (column >= 0) & (column < inner[1])
    return tf.where(
        inside[..., None], _sampled((image,), canvas, (is_labels,))[0], tf.cast(value, image.dtype)
    )


def fitted_size(
    rows: int | tf.Tensor, columns: int | tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the largest (height, width) of the aspect ratio rows : columns that fits, int32 scalars."""
    rows, columns = tf.convert_to_tensor(rows), tf.convert_to_tensor(columns)
    scale = tf.minimum(height / rows, width / columns)  # float64
    scaled_rows, scaled_columns = (
        tf.clip_by_value(tf.cast(tf.round(tf.cast(length, tf.float64) * scale), tf.int32), 1, limit)
        for length, limit in ((rows, height), (columns, width))
    )
    return scaled_rows, scaled_columns


def _banded_weights(
    *,
    lengths: tf.Tensor,
    extents: tf.Tensor,
    new_lengths: tf.Tensor,
    firsts: tf.Tensor,
    steps: tf.Tensor,
    count: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The banded matrices of both axes, axis 0 for rows, in blocks of outputs.

    Output k of an axis is its resized pixel firsts + k * steps.

    Args:
      lengths: int32 [2], of the axes before resizing.
      extents: float64 [2], the lengths of what is resized; the last pixel of an axis may be a part of one.
      new_lengths: int32 [2], of the axes after resizing.
      firsts: int32 [2].
      steps: int32 [2].
      count: outputs of the longer axis.

    Returns:
      inputs: int32 [2, blocks, S], the pixels of which the outputs of a block are sums.
      weights: float32 [2, blocks, _BLOCK, S].
    """
    blocks = -(-count // _BLOCK)
    scale = extents / tf.cast(new_lengths, tf.float64)  # [2]
    support = tf.maximum(scale, 1.0)
    span = tf.cast(tf.reduce_max(tf.math.ceil(scale * (_BLOCK - 1) + 4.0 * support)), tf.int32) + 1
    outputs = firsts[:, None] + steps[:, None] * tf.range(blocks * _BLOCK)  # [2, outputs]
    centres = (tf.cast(outputs, tf.float64) + 0.5) * scale[:, None] - 0.5
    centres = tf.reshape(centres, [2, blocks, _BLOCK])
    starts = tf.minimum(centres[..., 0], centres[..., -1]) - 2.0 * support[:, None]  # [2, blocks]
    inputs = tf.cast(tf.math.ceil(starts), tf.int32)[..., None] + tf.range(span)  # [2, blocks, S]
    distance = tf.cast(inputs, tf.float64)[:, :, None, :] - centres[..., None]  # [2, blocks, _BLOCK, S]
    distance = tf.cast(tf.abs(distance / support[:, None, None, None]), tf.float32)
    inside = (inputs >= 0) & (inputs < lengths[:, None, None])
    weights = tf.where(inside[:, :, None, :], imaging.cubic_kernel(distance), 0.0)
    # Outputs past the last one, which fill a block, may have no weights.
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=-1, keepdims=True))
    return tf.clip_by_value(inputs, 0, lengths[:, None, None] - 1), weights


def _resampled(image: tf.Tensor, inputs: tf.Tensor, weights: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """One image times the banded matrices: [H, W, C] -> [height, width, C]."""
    channels, dtype = image.shape[-1], image.dtype
    row_blocks, column_blocks = -(-height // _BLOCK), -(-width // _BLOCK)
    rows, columns = inputs[0, :row_blocks], inputs[1, :column_blocks]
    top = tf.reduce_min(rows)
    # Only the rows that the part needs. Cut between cast and transpose: otherwise TensorFlow would swap these
    # two, and log in every program that oneDNN cannot transpose uint8.
    image = tf.cast(image, tf.float32)[top : tf.reduce_max(rows) + 1]
    needed = tf.shape(image)[0]
    image = tf.transpose(image, [1, 0, 2])  # [W, needed, C]
    taps = tf.gather(tf.reshape(image, [-1, needed * channels]), columns)
    image = tf.matmul(weights[1, :column_blocks], taps)  # [blocks, _BLOCK, needed * C]
    image = _rounded(tf.reshape(image, [-1, needed, channels]), dtype)
    image = tf.reshape(tf.transpose(image, [1, 0, 2]), [needed, -1])
    image = tf.matmul(weights[0, :row_blocks], tf.gather(image, rows - top))
    image = tf.reshape(image, [row_blocks * _BLOCK, column_blocks * _BLOCK, channels])
    return tf.cast(_rounded(image[:height, :width], dtype), dtype)


def _rounded(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Rounds and clips to the values of an integer dtype; changes nothing for float32."""
    if dtype.is_floating:
        return values
    return tf.clip_by_value(tf.floor(values + 0.5), 0.0, float(dtype.max))
