"""A data set of two domains, a few smooth made-up pictures each, as `data.prepare` writes it."""

import os

import numpy as np
from PIL import Image

from data.prepare import prepare

NAME = "made_up"
EPOCH_EXAMPLES = 10
_IMAGES = {"trainA": EPOCH_EXAMPLES, "trainB": 7, "valA": 4, "valB": 4}


def prepare_made_up_images(directory: str, *, fewer: int = 0) -> str:
    """Writes the pictures and the data set, 36x36 pixels; returns the folder of prepared data sets.

    Args:
      directory: gets both.
      fewer: how many pictures of the first split are left out.
    """
    draw = np.random.default_rng(0)
    source = os.path.join(directory, "pictures")
    for split, count in _IMAGES.items():
        os.makedirs(os.path.join(source, split))
        for number in range(count - fewer * (split == "trainA")):
            coarse = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            coarse.resize((36, 36)).save(os.path.join(source, split, f"{number}.png"))
    data_dir = os.path.join(directory, "datasets")
    prepare(layout="unpaired", source=source, name=NAME, data_dir=data_dir)
    return data_dir
