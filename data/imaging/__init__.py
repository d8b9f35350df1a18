"""Pure image mathematics on tensors; nothing here reads files or keeps state."""

from data.imaging.metrics import mae, mse, psnr_db, rmse, ssim
from data.imaging.ranges import range_to_signed, to_signed, to_uint8
from data.imaging.ycbcr import rgb_to_ycbcr, ycbcr_to_rgb

__all__ = [
    "mae",
    "mse",
    "psnr_db",
    "range_to_signed",
    "rgb_to_ycbcr",
    "rmse",
    "ssim",
    "to_signed",
    "to_uint8",
    "ycbcr_to_rgb",
]
