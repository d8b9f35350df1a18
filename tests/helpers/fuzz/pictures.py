"""Small random pictures in every format and layout that data.prepare reads."""

from __future__ import annotations

import dataclasses
import pathlib
import random

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image

PAIRED = ("side_by_side", "paired")
_FORMATS = {
    "uint8": (".png", ".jpg", ".bmp", ".webp", ".tif"),
    "uint16": (".png", ".tif"),
    "float32": (".tif",),
}
_CHANNELS = {".png": (1, 2, 3, 4), ".tif": (1, 2, 3, 4, 5), ".jpg": (1, 3), ".bmp": (1, 3), ".webp": (3, 4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """A folder of random pictures.

    Attributes:
      layout: as of `data.prepare`.
      count: number of examples; of the second domain one more, if unpaired.
      extension: of the files, such as ".png".
      dtype: of the values, "uint8", "uint16" or "float32".
      channels: of A and B; of single images and of both halves the first.
      sizes: (height, width) of the examples, used in turn.
      largest: largest value; integers start at 0, floats at -`largest`.
      classes: number of values of each kind of picture that holds labels: {"A": 3}.
      side: "none", "vector", "classes" or "map": side information beside the pictures.
    """

    layout: str
    count: int
    extension: str
    dtype: str
    channels: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    largest: float
    classes: tuple[tuple[str, int], ...] = ()
    side: str = "none"

    def write(self, folder: pathlib.Path, *, seed: int) -> None:
        """Writes `source`, which data.prepare reads; `A`, `B`, `maps` to translate; `side.csv` or `side`."""
        draws = np.random.default_rng(seed)
        for name in ("source", "A", "B"):
            (folder / name).mkdir(parents=True)
        for number in range(self.count + (self.layout == "unpaired")):
            pair = {side: self._picture(side, number, draws) for side in "AB"}
            for side, picture in pair.items():
                if number < 2:  # every network takes this size
                    self._save(np.resize(picture, (64, 64, picture.shape[-1])), folder / side / f"p{number}")
                parts = {"paired": side, "unpaired": side}.get(self.layout)
                if parts and (self.layout == "paired" or side == "B" or number < self.count):
                    (folder / "source" / parts).mkdir(exist_ok=True)
                    self._save(picture, folder / "source" / parts / f"p{number}")
            if self.layout == "side_by_side":
                self._save(np.concatenate([pair["A"], pair["B"]], axis=1), folder / "source" / f"p{number}")
            elif self.layout == "single":
                self._save(pair["A"], folder / "source" / f"p{number}")
        self._write_side(folder, draws)

    def _picture(self, side: str, number: int, draws: np.random.Generator) -> np.ndarray:
        """[H, W, C]: soft shapes with noise; or classes, in blocks."""
        height, width = self.sizes[number % len(self.sizes)]
        channels = self.channels["AB".index(side)]
        coarse = draws.random((height // 8 + 1, width // 8 + 1, channels))
        values = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
        classes = dict(self.classes).get(side)
        if classes:
            return (values[..., :1] * classes).astype(self.dtype).repeat(channels, axis=-1)
        values = np.clip(values + draws.normal(0, 0.05, values.shape), 0, 1)
        if self.dtype == "float32":
            values = 2 * values - 1
        return (values * self.largest).astype(self.dtype)

    def _save(self, picture: np.ndarray, stem: pathlib.Path) -> None:
        path = stem.with_name(stem.name + self.extension)
        if self.extension == ".png":  # Pillow has no 16-bit colours
            path.write_bytes(tf.io.encode_png(picture).numpy())
        elif self.extension == ".tif":
            photometric = "rgb" if picture.shape[-1] in (3, 4) else "minisblack"
            layout = {"planarconfig": "contig"} if picture.shape[-1] > 1 else {}
            tifffile.imwrite(
                path, picture if picture.shape[-1] > 1 else picture[..., 0], photometric=photometric, **layout
            )
        else:
            Image.fromarray(picture if picture.shape[-1] > 1 else picture[..., 0]).save(path)

    def _write_side(self, folder: pathlib.Path, draws: np.random.Generator) -> None:
        if self.side == "map":
            for name in ("side", "maps"):
                (folder / name).mkdir()
            for number in range(self.count):
                height, width = self.sizes[number % len(self.sizes)]
                ids = draws.integers(0, 3, (height, width), np.uint8)
                Image.fromarray(ids).save(folder / "side" / f"p{number}.png")
                if number < 2:  # of the pictures to translate
                    Image.fromarray(np.resize(ids, (64, 64))).save(folder / "maps" / f"p{number}.png")
        elif self.side != "none":
            rows = (
                f"p{number}," + (f"{number},0.5" if self.side == "vector" else "ab"[number % 2])
                for number in range(self.count)
            )
            (folder / "side.csv").write_text("\n".join(rows) + "\n")


def chance(drawn: random.Random, share: float) -> bool:
    """True in this share of all draws."""
    return drawn.random() < share


def draw_pictures(
    drawn: random.Random, task: str, layout: str
) -> tuple[Pictures, tuple[tuple[str, str], ...], list[str]]:
    """The pictures, flags of data.prepare, settings of the side information."""
    dtype = drawn.choice(["uint8", "uint8", "uint16", "float32"])
    extension = drawn.choice(_FORMATS[dtype])
    channels = drawn.choice(_CHANNELS[extension]) if chance(drawn, 0.4) else 3
    both = (channels, channels)
    if layout == "paired" and chance(drawn, 0.3):
        both = (drawn.choice(_CHANNELS[extension]), channels)
    largest = {
        "uint8": 255.0,
        "uint16": drawn.choice([65535.0, 4095.0]),
        "float32": drawn.choice([1.0, 40.0]),
    }
    sizes = [(drawn.randint(34, 60), drawn.randint(34, 60)) for _ in range(drawn.choice([1, 3]))]
    if chance(drawn, 0.05):
        sizes = [(20, 31)]
    prepare = {"val_fraction": drawn.choice(["0", "0.1", "0.2"]), "test_fraction": drawn.choice(["0", "0.2"])}
    if dtype == "uint16" and chance(drawn, 0.5 if largest["uint16"] == 4095 else 0.05):
        prepare["value_range"] = "0,4095"
    classes: dict[str, int] = {}
    has_classes = dtype != "float32" and extension in (".png", ".bmp", ".tif")
    if layout in PAIRED and (has_classes or chance(drawn, 0.1)) and chance(drawn, 0.25):
        side = drawn.choice("AB")
        classes, prepare["labels"] = {side: 3}, side
    side, params = "none", []
    if layout in PAIRED and task in ("pix2pix", "supervised", "quickstart") and chance(drawn, 0.4):
        side = drawn.choice(["vector", "classes", "map"])
        kind = "map" if side == "map" else "vector"
        modes = ["concatenate"] if side == "map" else ["concatenate", "film"]
        if chance(drawn, 0.8):
            params = [f'side_information.SideInformation.{kind} = "{drawn.choice(modes)}"']
        if side == "map":
            prepare["side_map_kind"] = drawn.choice(["classes", "values"])
    pictures = Pictures(
        layout=layout,
        count=drawn.randint(9, 14) if chance(drawn, 0.92) else drawn.choice([1, 2, 5]),
        extension=extension,
        dtype=dtype,
        channels=both,
        sizes=tuple(sizes),
        largest=largest[dtype],
        classes=tuple(classes.items()),
        side=side,
    )
    return pictures, tuple(prepare.items()), params
