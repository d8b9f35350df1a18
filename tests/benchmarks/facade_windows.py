"""A real data set for regression: parts of photos of house fronts, and how much of each is windows.

The source is a folder of the CMP facades as pix2pix publishes them: train, val and test hold JPEG files with
a photo in the left half and a map of its parts, in flat colours, in the right half. Each photo is cut into 16
tiles of 64 x 64 pixels, or for training into 49 that overlap by half: 400 whole photos are too few for a
network from scratch. No photo is in two splits.

    python -m tests.benchmarks.facade_windows SOURCE FOLDER DATA_DIR
"""

import csv
import itertools
import pathlib
import sys

import numpy as np
from PIL import Image

from data.prepare import prepare

NAME = "facade_windows"
TILE = 64
"""Height and width of a part, in pixels."""
SPLITS = ("train", "val", "test")

_WINDOW = 2
_COLOURS = np.array(
    [
        [0, 0, 222],  # background
        [0, 48, 255],  # wall
        [0, 128, 255],  # window
        [0, 207, 255],  # door
        [32, 255, 223],  # cornice
        [112, 255, 143],  # sill
        [192, 255, 63],  # balcony
        [255, 239, 0],  # blind
        [255, 159, 0],  # decoration
        [255, 80, 0],  # moulding
        [255, 0, 0],  # pillar
        [175, 0, 0],  # shop
    ],
    np.int32,
)
"""RGB of each part [12, 3], of a colour map of equal steps; JPEG moves it by a few levels."""


def prepare_facade_windows(source, folder, data_dir):
    """Writes photos and windows.csv into `folder` and prepares them; does nothing if that was done."""
    if (pathlib.Path(data_dir) / NAME).exists():
        return
    folder = pathlib.Path(folder)
    rows = []
    for split in SPLITS:
        (folder / "photos" / split).mkdir(parents=True, exist_ok=True)
        for path in sorted((pathlib.Path(source) / split).glob("*.jpg")):
            photo, parts = _halves(path)
            stride = TILE // 2 if split == "train" else TILE
            starts = itertools.product(*(range(0, side - TILE + 1, stride) for side in photo.shape[:2]))
            for number, (top, left) in enumerate(starts):
                window = np.s_[top : top + TILE, left : left + TILE]
                name = f"{split}/{path.stem}_{number:02d}.png"
                Image.fromarray(photo[window]).save(folder / "photos" / name)
                rows.append([name, window_share(parts[window])])
    with open(folder / "windows.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file", "window_share"], *rows])
    report = prepare(
        layout="labelled",
        source=folder / "photos",
        targets=str(folder / "windows.csv"),
        name=NAME,
        data_dir=data_dir,
    )
    print(report, flush=True)


def window_share(parts):
    """The share of pixels whose nearest colour is that of windows, of a map uint8 [H, W, 3]: 0 to 1."""
    pixels, counts = np.unique(parts.reshape(-1, 3), axis=0, return_counts=True)
    distances = ((pixels[:, None].astype(np.int32) - _COLOURS) ** 2).sum(axis=-1)  # [colours, 12]
    return float(counts[distances.argmin(axis=1) == _WINDOW].sum() / counts.sum())


def _halves(path):
    """The photo and the map of its parts, uint8 [H, W, 3] each, of a file."""
    with Image.open(path) as pair:
        pixels = np.asarray(pair.convert("RGB"))
    middle = pixels.shape[1] // 2
    return pixels[:, :middle], pixels[:, middle:]


if __name__ == "__main__":
    prepare_facade_windows(*sys.argv[1:])
