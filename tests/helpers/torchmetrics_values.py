"""Metrics by torchmetrics, computed in an interpreter that has it: reads arrays, writes values.

  PYTHON tests/helpers/torchmetrics_values.py ARRAYS.npz VALUES.npz LPIPS.pth

ARRAYS.npz holds "images" and "references", uint8 [B, H, W, 3], and two sets of features, "made" and "real",
float64 [N, D]. LPIPS.pth gets the weights of the LPIPS network that was used. It imports nothing of Gantry.
"""

import sys
import warnings

import numpy as np
import torch
import torch.nn.functional
from torchmetrics.functional import mean_absolute_error, mean_squared_error
from torchmetrics.functional.classification import binary_accuracy, binary_f1_score, binary_jaccard_index
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
BORDER = 5
"""Half of the window. torchmetrics reflects images at their edges and averages over all; the paper takes
only windows inside the image. Means of whole photos differ by up to 0.02."""


class GivenFeatures(torch.nn.Module):
    """Takes features for images."""

    def __init__(self, dimensions):
        super().__init__()
        self.num_features = dimensions

    def forward(self, features):
        return features


def errors(images, references):
    """MAE, MSE, RMSE and PSNR of each pair of images."""
    pairs = list(zip(images, references, strict=True))
    return {
        "mae": torch.stack([mean_absolute_error(x, y) for x, y in pairs]),
        "mse": torch.stack([mean_squared_error(x, y) for x, y in pairs]),
        "rmse": torch.stack([mean_squared_error(x.flatten(), y.flatten(), squared=False) for x, y in pairs]),
        "psnr_db": peak_signal_noise_ratio(
            images, references, data_range=255.0, reduction="none", dim=(1, 2, 3)
        ),
    }


def ssim(images, references):
    """SSIM of each pair, averaged inside the border."""
    _, full = structural_similarity_index_measure(
        images, references, data_range=255.0, reduction="none", return_full_image=True
    )
    return full[..., BORDER:-BORDER, BORDER:-BORDER].mean((1, 2, 3))


def ms_ssim(images, references):
    """MS-SSIM of each pair, from torchmetrics' comparisons at each scale, averaged over the channels."""
    size = len(images), images.shape[1]
    x, y = (each.flatten(0, 1)[:, None] for each in (images, references))  # [B C, 1, H, W]
    product = torch.ones(len(x), dtype=x.dtype)
    for weight in MS_SSIM_WEIGHTS[:-1]:
        _, contrast = structural_similarity_index_measure(
            x, y, data_range=255.0, reduction="none", return_contrast_sensitivity=True
        )
        product *= contrast**weight
        x, y = (torch.nn.functional.avg_pool2d(each, 2) for each in (x, y))
    return (product * ssim(x, y) ** MS_SSIM_WEIGHTS[-1]).reshape(size).mean(1)


def masks(images, references):
    """IoU and Dice, averaged over the channels, and the share of pixels that agree."""
    fractions, truth = images / 255, (references > 127).int()
    metrics = {"mask_iou": binary_jaccard_index, "mask_dice": binary_f1_score, "accuracy": binary_accuracy}
    return {
        name: torch.stack(
            [
                torch.stack([metric(x[c], y[c], threshold=0.5) for c in range(3)]).mean()
                for x, y in zip(fractions, truth, strict=True)
            ]
        )
        for name, metric in metrics.items()
    }


def distances(made, real):
    """FID, and KID of all features in one block."""
    fid = FrechetInceptionDistance(feature=GivenFeatures(made.shape[1])).set_dtype(torch.float64)
    kid = KernelInceptionDistance(
        feature=GivenFeatures(made.shape[1]), subsets=1, subset_size=len(made)
    ).set_dtype(torch.float64)
    for metric in (fid, kid):
        metric.update(made, real=False)
        metric.update(real, real=True)
    return {"fid": fid.compute(), "kid": kid.compute()[0]}


def lpips(images, references, weights):
    """LPIPS with the published linear layers and a random AlexNet, whose weights are written."""
    from torchmetrics.functional.image.lpips import _LPIPS  # needs torchvision

    torch.manual_seed(0)
    network = _LPIPS(net="alex", pnet_rand=True)
    torch.save(network.state_dict(), weights)
    x, y = (each.float() / 127.5 - 1 for each in (images, references))
    return network(x, y).flatten()


def main(arrays, values, weights):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the test may run beside others
    with np.load(arrays) as stored:
        made, real = (torch.from_numpy(stored[name]) for name in ("made", "real"))
        images, references = (
            torch.from_numpy(
                stored[name].astype(np.float64).transpose(0, 3, 1, 2)
            ).contiguous()  # [B, C, H, W]
            for name in ("images", "references")
        )
    found = errors(images, references) | masks(images, references) | distances(made, real)
    found["ssim"] = ssim(images, references)
    found["ms_ssim"] = ms_ssim(images, references)
    try:
        found["lpips"] = lpips(images, references, weights)
    except ModuleNotFoundError:
        pass
    np.savez(values, **{name: value.numpy() for name, value in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
