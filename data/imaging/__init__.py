"""Pure image mathematics on tensors; nothing here reads files or keeps state."""

from data.imaging.metrics import mae, mse, psnr_db, rmse, ssim
from data.imaging.ranges import range_to_signed, to_signed, to_uint8

__all__ = ["mae", "mse", "psnr_db", "range_to_signed", "rmse", "ssim", "to_signed", "to_uint8"]
