"""PyTorch's DataLoader with Pillow on side_by_side images, as pix2pix's reference reads; prints images/s.

Run by data_speed.py in an environment that has torch: torch_loader.py FOLDER EXAMPLES BATCH
"""

import os
import random
import sys
import time

import numpy as np
import torch
from PIL import Image


class Pairs(torch.utils.data.Dataset):
    """Both halves resized to 286x286, cut to the same random 256x256, mirrored half of the time."""

    def __init__(self, folder):
        self.paths = sorted(entry.path for entry in os.scandir(folder))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        picture = Image.open(self.paths[index]).convert("RGB")
        width, height = picture.size
        left, top, mirrored = random.randint(0, 30), random.randint(0, 30), random.random() < 0.5
        halves = []
        for box in ((0, 0, width // 2, height), (width // 2, 0, width, height)):
            half = picture.crop(box).resize((286, 286), Image.Resampling.BICUBIC)
            half = half.crop((left, top, left + 256, top + 256))
            if mirrored:
                half = half.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(np.array(half)).permute(2, 0, 1).contiguous()
            halves.append(pixels.float().div_(127.5).sub_(1))
        return halves


def main(folder, examples, batch):
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        Pairs(folder), batch_size=batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )

    def endless():
        while True:
            yield from loader

    stream = endless()
    next(stream)
    began = time.perf_counter()
    for _ in range(examples // batch):
        next(stream)
    print(examples // batch * batch / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
