"""Every metric against torchmetrics, on random pictures and on real ones.

With a Python that has it: this one, or the one that GANTRY_TORCH_PYTHON names. LPIPS needs torchvision too.
"""

import glob
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import imaging
from engine.evaluation.frechet_distance import FeatureMoments, frechet_distance
from engine.evaluation.kernel_distance import kernel_distance
from engine.evaluation.random_features import random_features
from models.lpips import Lpips

PROGRAM = Path(__file__).parents[2] / "helpers" / "torchmetrics_values.py"
SIZE = 176  # all scales of MS-SSIM, and even at each: torchmetrics drops an odd last row
COUNT = 16


@pytest.fixture(scope="session")
def torchmetrics_python():
    """An interpreter with torchmetrics."""
    python = os.environ.get("GANTRY_TORCH_PYTHON")
    if python:
        done = subprocess.run([python, "-c", "import torchmetrics"], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("the Python of GANTRY_TORCH_PYTHON has no torchmetrics")
    elif importlib.util.find_spec("torchmetrics") is None:
        pytest.skip("no torchmetrics here, and GANTRY_TORCH_PYTHON names no Python that has it")
    return python or sys.executable


def random_pictures():
    """Noise, smoothed by averages of growing width, and the same with more noise."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (COUNT, SIZE, SIZE, 3))
    for picture, width in zip(noise, range(COUNT), strict=True):
        picture[:] = sum(np.roll(picture, k, 0) for k in range(width + 1)) / (width + 1)
    return with_noise(noise, rng)


def real_pictures(folder):
    """Photos of facades, and the same with noise."""
    paths = sorted(glob.glob(os.path.join(folder, "facades", "**", "*.jpg"), recursive=True))[:COUNT]
    assert len(paths) == COUNT
    photos = [np.array(Image.open(path).convert("RGB").crop((0, 0, SIZE, SIZE))) for path in paths]
    return with_noise(np.array(photos, np.float64), np.random.default_rng(1))


def with_noise(pictures, rng):
    """(images, references), uint8; the noise of an image is stronger than that of the one before."""
    deviation = np.linspace(2, 60, len(pictures))[:, None, None, None]
    noisy = pictures + rng.normal(0, 1, pictures.shape) * deviation
    return tuple(np.clip(np.rint(each), 0, 255).astype(np.uint8) for each in (noisy, pictures))


def moments(rows):
    found = FeatureMoments(rows.shape[1])
    found.add(rows)
    return found


@pytest.mark.parametrize("pictures", ["random", "real"])
def test_metrics_equal_torchmetrics(pictures, torchmetrics_python, tmp_path, request):
    if pictures == "random":
        images, references = random_pictures()
    else:
        images, references = real_pictures(request.getfixturevalue("real_images"))
    # The features that an evaluation compares, as many as give covariances of full rank.
    made, real = (np.asarray(random_features(x), np.float64)[:, : COUNT // 2] for x in (images, references))
    arrays, values, weights = (str(tmp_path / name) for name in ("arrays.npz", "values.npz", "lpips.pth"))
    np.savez(arrays, images=images, references=references, made=made, real=real)
    subprocess.run([torchmetrics_python, str(PROGRAM), arrays, values, weights], check=True)
    with np.load(values) as stored:
        expected = dict(stored)

    names = ("mae", "mse", "rmse", "psnr_db", "ssim", "ms_ssim", "mask_iou", "mask_dice")
    found = {name: getattr(imaging, name)(images, references).numpy() for name in names}
    found["fid"] = frechet_distance(moments(made), moments(real))
    found["kid"] = kernel_distance(made, real).value
    channels = [(images[..., [c]], references[..., [c]]) for c in range(3)]  # pixel accuracy is of all
    found["accuracy"] = np.mean([imaging.pixel_accuracy(*pair) for pair in channels], axis=0)
    if "lpips" in expected:
        found["lpips"] = Lpips(weights=(weights,)).build()(images, references).numpy()
    assert all(np.ptp(value) > 0 for value in found.values() if np.ndim(value))
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
