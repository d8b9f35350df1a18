"""Pure functions of images: colour spaces, metrics, transforms, resampling. No files, no state."""

from data.imaging.bicubic_kernel import cubic_kernel
from data.imaging.block_transforms import JPEG_LUMINANCE, block_dct, block_hadamard
from data.imaging.colour_spaces import COLOUR_SPACES, rgb_to_space, space_to_rgb
from data.imaging.image_ranges import ValueRange, pair_in_float64, range_of, to_signed_by_range, to_signed_rgb
from data.imaging.lab import lab_to_rgb, rgb_to_lab
from data.imaging.luma_metrics import luma_psnr_db, luma_ssim
from data.imaging.mask_metrics import mask_dice, mask_iou, pixel_accuracy
from data.imaging.metrics import PSNR_CAP_DB, identical, mae, ms_ssim, mse, psnr_db, rmse, ssim
from data.imaging.nearest import nearest, nearest_indices
from data.imaging.one_hot import Classes, OneHot
from data.imaging.resampling import resample
from data.imaging.similarity import (
    MS_SSIM_WEIGHTS,
    min_image_size,
    multiscale_similarity,
    structural_similarity,
)
from data.imaging.upsampling import enlarge
from data.imaging.value_ranges import range_to_signed, signed_to_range, to_signed, to_uint8
from data.imaging.ycbcr import rgb_to_ycbcr, ycbcr_to_rgb

__all__ = [
    "COLOUR_SPACES",
    "JPEG_LUMINANCE",
    "MS_SSIM_WEIGHTS",
    "PSNR_CAP_DB",
    "Classes",
    "OneHot",
    "ValueRange",
    "block_dct",
    "block_hadamard",
    "cubic_kernel",
    "enlarge",
    "identical",
    "lab_to_rgb",
    "luma_psnr_db",
    "luma_ssim",
    "mae",
    "mask_dice",
    "mask_iou",
    "min_image_size",
    "ms_ssim",
    "mse",
    "multiscale_similarity",
    "nearest",
    "nearest_indices",
    "pair_in_float64",
    "pixel_accuracy",
    "psnr_db",
    "range_of",
    "range_to_signed",
    "resample",
    "rgb_to_lab",
    "rgb_to_space",
    "rgb_to_ycbcr",
    "rmse",
    "signed_to_range",
    "space_to_rgb",
    "ssim",
    "structural_similarity",
    "to_signed",
    "to_signed_by_range",
    "to_signed_rgb",
    "to_uint8",
    "ycbcr_to_rgb",
]
