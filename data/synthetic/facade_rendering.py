"""Renders images of house fronts from their label maps alone.

The labels and their positions determine every pixel, so that a network can learn the mapping: material, light
from the upper left, shadows, frames, reflections.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from data.synthetic.facade_labels import COLOURS, SIZE, Part

Rgb = tuple[int, int, int]

_Y, _X = (grid.astype(np.float32) for grid in np.mgrid[:SIZE, :SIZE])
_PROTRUDING = (Part.CORNICE, Part.SILL, Part.BALCONY, Part.AWNING, Part.TILES, Part.SLATE)


def render_facade(labels: np.ndarray) -> np.ndarray:
    """Renders a label map.

    Args:
      labels: uint8 [SIZE, SIZE, 3] in the colours of `COLOURS`.

    Returns:
      uint8 [SIZE, SIZE, 3].
    """
    codes = _codes(COLOURS)
    by_code = np.argsort(codes)
    parts = by_code[np.searchsorted(codes, _codes(labels), sorter=by_code)]  # [SIZE, SIZE]
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    for part, paint in _PAINTS.items():
        mask = parts == part
        if mask.any():
            image[mask] = paint(mask)[mask]
    image *= _shade(parts)[:, :, None]
    image += 3.0 * _noise(0)[:, :, None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _codes(colours: np.ndarray) -> np.ndarray:
    """One number for each colour: uint8 [..., 3] -> int64 [...]."""
    return colours @ np.array([1 << 16, 1 << 8, 1])


@functools.cache
def _noise(octave: int) -> np.ndarray:
    """A fixed texture in about [-2, 2], smooth over 2**octave pixels: float32 [SIZE, SIZE]."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((octave,))))
    coarse = rng.standard_normal((SIZE // 2**octave + 2,) * 2)
    at = np.arange(SIZE) / 2**octave
    whole, part = at.astype(int), at % 1
    blend = part * part * (3 - 2 * part)
    rows = coarse[whole] * (1 - blend)[:, None] + coarse[whole + 1] * blend[:, None]
    return (rows[:, whole] * (1 - blend) + rows[:, whole + 1] * blend).astype(np.float32)


def _colour(rgb: Rgb, light: np.ndarray | None = None) -> np.ndarray:
    """A colour times a field of light [SIZE, SIZE], by default 1: float32 [SIZE, SIZE, 3]."""
    field = np.broadcast_to(np.asarray(rgb, np.float32), (SIZE, SIZE, 3))
    return field if light is None else field * np.asarray(light, np.float32)[:, :, None]


def _mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns `first` where weight [SIZE, SIZE] is 0, `second` where it is 1, and mixes them between."""
    weight = np.asarray(weight, np.float32)[:, :, None]
    return first * (1 - weight) + second * weight


def _inside(mask: np.ndarray) -> list[np.ndarray]:
    """Distances in pixels of each masked pixel to the last masked one left, right, above and below."""
    places = np.arange(SIZE, dtype=np.int16)  # small, so that accumulating is fast
    along = {0: places[:, None], 1: places[None, :]}
    distances = []
    for axis, step in ((1, 1), (1, -1), (0, 1), (0, -1)):
        flipped = np.flip(mask, axis) if step < 0 else mask
        outside = np.maximum.accumulate(np.where(flipped, np.int16(-1), along[axis]), axis=axis)
        distance = (along[axis] - outside - 1).astype(np.int64)
        distances.append(np.flip(distance, axis) if step < 0 else distance)
    return distances


def _shade(parts: np.ndarray) -> np.ndarray:
    """Light on each pixel: sun from the upper left, and shadows under protruding parts."""
    light = 1.06 - 0.10 * _X / SIZE - 0.06 * _Y / SIZE
    protruding = np.isin(parts, _PROTRUDING)
    outdoors = np.isin(parts, (Part.SKY, Part.TREE, Part.TRUNK, Part.PAVEMENT))
    for depth, strength in ((1, 0.66), (2, 0.76), (3, 0.88)):
        above = np.zeros_like(protruding)
        above[depth:, 1:] = protruding[:-depth, :-1]
        light = np.where(above & ~protruding & ~outdoors, np.minimum(light, strength), light)
    on_street = (parts == Part.PAVEMENT) & (_Y - _top_of(parts == Part.PAVEMENT) < 3)
    return np.where(on_street, light * 0.82, light)


def _top_of(mask: np.ndarray) -> np.ndarray:
    """The row at which the vertical run of masked pixels through each pixel begins."""
    return _Y - _inside(mask)[2]


@functools.cache
def _sky() -> np.ndarray:
    blue = _mix(_colour((112, 164, 222)), _colour((214, 230, 242)), np.clip(_Y / 48, 0, 1))
    clouds = np.clip(0.9 * _noise(4) + 0.5 * _noise(3) + 0.2 * _noise(2) - 0.3, 0, 1)
    return _mix(blue, _colour((250, 250, 252)), 0.8 * clouds)


@functools.cache
def _plaster() -> np.ndarray:
    return _colour((232, 211, 170), 1 + 0.020 * _noise(3) + 0.015 * _noise(1))


def _blocks(rgb: Rgb, joint: Rgb, height: int, width: int, variation: float) -> np.ndarray:
    """Masonry in running bond: blocks of height x width pixels with joints of one pixel."""
    row = (_Y // height).astype(int)
    shifted = _X + (row % 2) * (width // 2)
    column = (shifted // width).astype(int)
    light = 1 + variation * _noise(0)[(row * 7) % SIZE, (column * 13 + row) % SIZE]
    joints = (_Y % height == height - 1) | (shifted % width == width - 1)
    return _mix(_colour(rgb, light), _colour(joint), 0.75 * joints)


@functools.cache
def _brick() -> np.ndarray:
    return _blocks((176, 88, 66), (206, 186, 166), 4, 8, 0.09)


@functools.cache
def _stone() -> np.ndarray:
    return _blocks((176, 172, 164), (142, 138, 132), 8, 16, 0.04)


def _window(mask: np.ndarray) -> np.ndarray:
    left, right, above, below = _inside(mask)
    height, width = above + below + 1, left + right + 1
    glass = _mix(_colour((150, 190, 214)), _colour((46, 66, 88)), above / height)
    diagonal = (left + 0.6 * above) / np.maximum(width, 1)
    gleam = np.exp(-(((diagonal - 0.55) / 0.16) ** 2))
    gleam += 0.5 * np.exp(-(((diagonal - 0.95) / 0.07) ** 2))
    glass = _mix(glass, _colour((236, 244, 250)), np.clip(0.65 * gleam, 0, 1))
    edge = np.minimum.reduce([left, right, above, below]) == 0
    mullion = (np.abs(left - right) <= (width % 2 == 0)) & (width >= 6)
    transom = (above == height // 3) & (height >= 9)
    frame = _colour((244, 240, 230)) - 26 * (right == 0)[:, :, None]
    return np.where((edge | mullion | transom)[:, :, None], frame, glass)


def _shop_window(mask: np.ndarray) -> np.ndarray:
    left, right, above, below = _inside(mask)
    warm = _mix(_colour((255, 226, 160)), _colour((176, 116, 66)), above / (above + below + 1))
    goods = (below < 5) & (((_X // 3) % 2) == 0) & (below > 0)
    warm = np.where(goods[:, :, None], warm * (0.62 + 0.1 * _noise(1))[:, :, None], warm)
    gleam = ((_X + _Y) % 26 < 3) & (above < 12)
    warm = _mix(warm, _colour((255, 250, 235)), 0.45 * gleam)
    edge = np.minimum.reduce([left, right, above, below]) == 0
    return np.where(edge[:, :, None], _colour((62, 48, 36)), warm)


def _door(mask: np.ndarray) -> np.ndarray:
    left, right, above, _ = _inside(mask)
    wood = _colour((122, 72, 40), 1 + 0.05 * np.sin(_X * 2.1) + 0.02 * _noise(1))
    edge = (np.minimum(left, right) == 0) | (above == 0)
    panels = (above % 7 == 2) | (np.abs(left - right) <= 1)
    wood = np.where(panels[:, :, None], wood * 0.7, wood)
    lit = (above >= 1) & (above < 4) & ~edge
    wood = np.where(lit[:, :, None], _colour((236, 214, 150)), wood)
    return np.where(edge[:, :, None], _colour((84, 50, 28)), wood)


def _moulding(rgb: Rgb, mask: np.ndarray) -> np.ndarray:
    """A strip of stone, bright on its upper edge and dark on its lower one."""
    _, _, above, below = _inside(mask)
    return _colour(rgb, 1 + 0.06 * (above == 0) - 0.16 * ((below == 0) & (above > 0)))


def _balcony(mask: np.ndarray) -> np.ndarray:
    left, right, above, below = _inside(mask)
    bars = (left % 2 == 0) | (right == 0)
    railing = np.where(bars[:, :, None], _colour((52, 54, 60)), _colour((150, 152, 152)))
    railing = np.where((above == 0)[:, :, None], _colour((34, 36, 42)), railing)
    slab = _colour((206, 200, 190), 1 - 0.2 * (below == 0))
    return np.where((below <= 1)[:, :, None], slab, railing)


def _shutter(mask: np.ndarray) -> np.ndarray:
    left, right, _, _ = _inside(mask)
    slats = np.where(_Y % 2 == 0, 1.08, 0.84)
    return _colour((74, 122, 92), np.where((left == 0) | (right == 0), 0.9, slats))


def _roof(rgb: Rgb, mask: np.ndarray) -> np.ndarray:
    _, _, above, _ = _inside(mask)
    row = (_Y // 3).astype(int)
    scallop = (_X + 2 * (row % 2)) % 4
    light = 1.1 - 0.16 * (_Y % 3 == 2) - 0.07 * (scallop == 0) + 0.05 * _noise(0) + 0.03 * _noise(3)
    return _colour(rgb, light * np.where(above == 0, 1.12, 1.0))


def _shop(mask: np.ndarray) -> np.ndarray:
    _, _, above, _ = _inside(mask)
    light = 1 + 0.25 * (above == 0) + 0.12 * (_X % 16 == 0) - 0.1 * (above == 5)
    return _colour((40, 92, 88), light)


def _awning(mask: np.ndarray) -> np.ndarray:
    left, _, above, below = _inside(mask)
    stripes = (left // 3) % 2
    striped = _mix(_colour((196, 52, 48)), _colour((246, 240, 228)), stripes)
    return striped * (1.06 - 0.05 * above - 0.12 * (below == 0))[:, :, None]


def _pavement(mask: np.ndarray) -> np.ndarray:
    above = _inside(mask)[2]
    slanted = (_X - SIZE / 2) / (1 + 0.06 * above)
    joints = ((slanted % 12) < 1) | (above == 4)
    light = 1 - 0.16 * joints + 0.12 * (above == 0) + 0.02 * _noise(0) + 0.03 * _noise(2)
    return _colour((164, 160, 154), light)


def _tree(mask: np.ndarray) -> np.ndarray:
    left, right, above, below = _inside(mask)
    round_light = (right + below - left - above) / np.maximum(left + right + above + below + 1, 1)
    light = 0.95 + 0.28 * round_light + 0.11 * _noise(1) + 0.06 * _noise(0)
    return _colour((86, 140, 62), light)


def _trunk(mask: np.ndarray) -> np.ndarray:
    left = _inside(mask)[0]
    return _colour((104, 78, 54), 1.1 - 0.16 * left)


_PAINTS: dict[Part, Callable[[np.ndarray], np.ndarray]] = {
    Part.SKY: lambda _: _sky(),
    Part.PLASTER: lambda _: _plaster(),
    Part.BRICK: lambda _: _brick(),
    Part.STONE: lambda _: _stone(),
    Part.WINDOW: _window,
    Part.DOOR: _door,
    Part.CORNICE: functools.partial(_moulding, (228, 218, 198)),
    Part.SILL: functools.partial(_moulding, (214, 206, 192)),
    Part.BALCONY: _balcony,
    Part.SHUTTER: _shutter,
    Part.TILES: functools.partial(_roof, (184, 88, 60)),
    Part.SLATE: functools.partial(_roof, (92, 102, 120)),
    Part.SHOP: _shop,
    Part.SHOP_WINDOW: _shop_window,
    Part.AWNING: _awning,
    Part.PAVEMENT: _pavement,
    Part.TREE: _tree,
    Part.TRUNK: _trunk,
}
"""Part -> function of its mask, bool [SIZE, SIZE], that returns an image; only masked pixels are used."""
