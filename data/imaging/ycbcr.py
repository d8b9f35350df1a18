"""Conversion between R'G'B' and Y'CbCr, of NumPy arrays and tensors.

With R', G', B' in [0, 1] and K_R, K_B of a standard (Rec. ITU-R BT.601-7, 2.5.1; BT.709-6, item 3.2):
    Y' = K_R R' + (1 - K_R - K_B) G' + K_B B'
    Cb = (B' - Y') / (2 (1 - K_B)),  Cr = (R' - Y') / (2 (1 - K_R)).
As values of n bits, with s = 2^(n - 8) (Rec. ITU-T H.273, 8.3):
    studio range  16 s + 219 s Y',  128 s + 224 s C
    full range    (2^n - 1) Y',     128 s + (2^n - 1) C,  which for 8 bits is JPEG's (Rec. ITU-T T.871).
"""

from typing import Any

import numpy as np

LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
"""Name of a matrix -> (K_R, K_B)."""


def rgb_to_ycbcr(images: Any, *, matrix: str = "bt601", full_range: bool = False, bits: int = 8) -> Any:
    """Converts R'G'B' to Y'CbCr, neither rounded nor clipped.

    Args:
      images: floating [..., 3] in [0, 2^bits - 1]; a NumPy array or a tensor.
      matrix: "bt601" or "bt709".
      full_range: use all values of the bits; otherwise studio range (with 8 bits 16 to 235, and to 240).
      bits: per value, at least 8.

    Returns:
      An array or a tensor of the same dtype and shape: Y', Cb, Cr as values of that many bits.

    Raises:
      ValueError: the matrix is unknown.
      TypeError: the dtype is not a floating-point type.
    """
    forward, offset = _conversion(matrix, full_range, bits)
    return _mixed(images, forward, offset)


def ycbcr_to_rgb(images: Any, *, matrix: str = "bt601", full_range: bool = False, bits: int = 8) -> Any:
    """Converts Y'CbCr to R'G'B' in [0, 2^bits - 1]; the inverse of `rgb_to_ycbcr`, with its arguments.

    Neither rounded nor clipped: values of no colour give R'G'B' outside the range.
    """
    forward, offset = _conversion(matrix, full_range, bits)
    inverse = np.linalg.inv(forward)
    return _mixed(images, inverse, -inverse @ offset)


def _conversion(matrix: str, full_range: bool, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 ([3, 3], [3]) such that Y'CbCr = [3, 3] R'G'B' + [3], both as values of `bits` bits."""
    if matrix not in LUMA_WEIGHTS:
        raise ValueError(f"matrix = {matrix!r}: must be one of {', '.join(LUMA_WEIGHTS)}")
    red, blue = LUMA_WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    cb = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    cr = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    peak, step = 2**bits - 1, 2 ** (bits - 8)
    scales = np.array([peak, peak, peak] if full_range else [219 * step, 224 * step, 224 * step]) / peak
    offset = np.array([0 if full_range else 16 * step, 128 * step, 128 * step], np.float64)
    return np.stack([luma, cb, cr]) * scales[:, None], offset


def _mixed(images: Any, weights: np.ndarray, offset: np.ndarray) -> Any:
    """The sum weights @ channels + offset. Not a matrix product: GPUs round its operands (TF32)."""
    dtype = np.dtype(getattr(images.dtype, "as_numpy_dtype", images.dtype))
    if dtype.kind in "biu":
        raise TypeError(f"Y'CbCr conversion: takes floating-point values, not {dtype}")
    weights, offset = weights.astype(dtype), offset.astype(dtype)
    if isinstance(images, np.ndarray):  # twice as fast with whole channels, which may be planes in memory
        red, green, blue = (images[..., k] for k in range(3))
        mixed = (w[0] * red + w[1] * green + w[2] * blue + b for w, b in zip(weights, offset, strict=True))
        return np.stack([*mixed], axis=-1)
    terms = [images[..., k : k + 1] * weights[:, k] for k in range(3)]  # [..., 1] * [3] -> [..., 3]
    return terms[0] + terms[1] + terms[2] + offset
