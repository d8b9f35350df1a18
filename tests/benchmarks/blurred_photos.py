"""A real data set on which PSNR rises with training: photos of house fronts, blurred and as they are.

The source is a folder of the CMP facades as pix2pix publishes them: train, val and test hold JPEG files with
a photo in the left half. Photos are scaled down first, so that a 64x64 crop shows much of a front.
"""

import pathlib

from PIL import Image, ImageFilter

from data.prepare import prepare

NAME = "blurred_photos"
SIDE = 128
BLUR_RADIUS = 2.0
"""Standard deviation of the Gaussian blur, in pixels of the scaled photo."""

SPLITS = ("train", "val")


def prepare_blurred_photos(source, folder, data_dir, *, splits=SPLITS, blur_radius=BLUR_RADIUS):
    """Writes the pairs into `folder` and prepares them in `data_dir`; does nothing if they are there."""
    if (pathlib.Path(data_dir) / NAME).exists():
        return
    for split in splits:
        for path in sorted((pathlib.Path(source) / split).glob("*.jpg")):
            sharp = _photo(path)
            blurred = sharp.filter(ImageFilter.GaussianBlur(blur_radius))
            for side, picture in (("A_blurred", blurred), ("B_sharp", sharp)):
                target = pathlib.Path(folder) / split / side / f"{path.stem}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target)
    print(prepare(layout="paired", source=folder, name=NAME, data_dir=data_dir), flush=True)


def _photo(path):
    """The left half of a side-by-side file, SIDE x SIDE pixels."""
    with Image.open(path) as pair:
        photo = pair.convert("RGB").crop((0, 0, pair.width // 2, pair.height))
    return photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
