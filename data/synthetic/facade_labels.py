"""Random label maps of house fronts in flat colours, like those of the CMP facade data base."""

from __future__ import annotations

import enum
import itertools

import numpy as np

SIZE = 128
"""Height and width of a label map in pixels."""


class Part(enum.IntEnum):
    """What a pixel shows; the index of its colour in `COLOURS`."""

    SKY = 0
    PLASTER = 1
    BRICK = 2
    STONE = 3
    WINDOW = 4
    DOOR = 5
    CORNICE = 6
    SILL = 7
    BALCONY = 8
    SHUTTER = 9
    TILES = 10
    SLATE = 11
    SHOP = 12
    SHOP_WINDOW = 13
    AWNING = 14
    PAVEMENT = 15
    TREE = 16
    TRUNK = 17


COLOURS = np.array(
    [
        [0, 0, 128],
        [0, 0, 255],
        [85, 0, 255],
        [0, 85, 170],
        [0, 128, 255],
        [0, 200, 255],
        [0, 255, 255],
        [85, 255, 170],
        [170, 255, 85],
        [255, 255, 0],
        [255, 85, 0],
        [170, 0, 85],
        [170, 0, 0],
        [255, 170, 0],
        [255, 0, 0],
        [96, 96, 96],
        [0, 170, 0],
        [96, 64, 0],
    ],
    np.uint8,
)
"""RGB of each part, uint8 [18, 3]."""


def draw_parts(index: int) -> np.ndarray:
    """Draws house front number `index`: uint8 [SIZE, SIZE] of `Part` values."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((1913, index))))
    parts = np.full((SIZE, SIZE), Part.SKY, np.uint8)
    street = SIZE - int(rng.integers(7, 12))
    left, right = (int(rng.integers(0, 12)) * int(rng.random() < 0.5) for _ in range(2))
    right = SIZE - right
    eaves = int(rng.integers(20, 38))
    ground_floor = street - int(rng.integers(22, 28))
    _draw_roof(parts, rng, left, right, eaves)
    parts[eaves:street, left:right] = rng.choice([Part.PLASTER, Part.BRICK, Part.STONE])
    columns = max(2, (right - left) // int(rng.integers(17, 30)))
    edges = np.linspace(left + 3, right - 3, columns + 1)
    _draw_upper_floors(parts, rng, edges, eaves, ground_floor)
    parts[eaves - 1 : eaves + 2, max(left - 1, 0) : right + 1] = Part.CORNICE
    draw_ground_floor = _draw_shops if rng.random() < 0.5 else _draw_entrance
    draw_ground_floor(parts, rng, edges, ground_floor, street)
    if rng.random() < 0.7:
        parts[ground_floor - 1 : ground_floor + 1, left:right] = Part.CORNICE
    parts[street:] = Part.PAVEMENT
    for _ in range(rng.choice([0, 0, 1, 2])):
        _draw_tree(parts, rng, street)
    return parts


def _draw_roof(parts: np.ndarray, rng: np.random.Generator, left: int, right: int, eaves: int) -> None:
    """A flat, hipped or gabled roof above the eaves, with chimneys and, where they fit, dormers."""
    kind = rng.choice(["flat", "hipped", "hipped", "gabled"])
    if kind == "flat":
        return
    cover = rng.choice([Part.TILES, Part.SLATE])
    height = int(rng.integers(10, min(20, eaves - 6)))
    slope = (right - left) / 2 / height if kind == "gabled" else rng.uniform(0.2, 0.9)
    for chimney in rng.integers(left + 12, right - 16, size=rng.integers(0, 3)):
        parts[eaves - height - 4 : eaves, chimney : chimney + 5] = Part.BRICK
        parts[eaves - height - 4, chimney - 1 : chimney + 6] = Part.CORNICE
    for row in range(height):
        inset = int(slope * (height - row))
        parts[eaves - height + row, left + inset : right - inset] = cover
    if kind == "hipped" and height >= 14:
        for centre in np.linspace(left, right, int(rng.integers(3, 6)))[1:-1].astype(int):
            parts[eaves - 11 : eaves - 1, centre - 4 : centre + 5] = Part.PLASTER
            parts[eaves - 10 : eaves - 3, centre - 2 : centre + 3] = Part.WINDOW
            parts[eaves - 12, centre - 5 : centre + 6] = Part.CORNICE


def _draw_upper_floors(
    parts: np.ndarray, rng: np.random.Generator, edges: np.ndarray, top: int, bottom: int
) -> None:
    """Rows of windows between the eaves and the ground floor, in one style for the whole house."""
    floors = max(1, (bottom - top - 2) // int(rng.integers(17, 26)))
    levels = np.linspace(top + 2, bottom, floors + 1)
    spacing, storey = edges[1] - edges[0], levels[1] - levels[0]
    width = int(spacing * rng.uniform(0.38, 0.55))
    height = int(storey * rng.uniform(0.5, 0.66))
    shutters, arched, lintels = rng.random(3) < (0.35, 0.25, 0.4)
    string_courses = rng.random() < 0.4
    has_balcony = rng.random((floors, len(edges) - 1)) < rng.choice([0.0, 0.25, 0.7])
    if rng.random() < 0.5:
        has_balcony[:] = has_balcony[:1]  # the same columns on every floor
    for floor in range(floors):
        y = int(levels[floor] + (storey - height) / 2)
        if string_courses and floor:
            parts[int(levels[floor]), int(edges[0]) - 3 : int(edges[-1]) + 3] = Part.CORNICE
        for column, centre in enumerate((edges[:-1] + edges[1:]) / 2):
            x = int(centre - width / 2)
            _draw_window(parts, x, y, width, height, arched=arched, shutters=shutters)
            if lintels and not arched:
                parts[y - 2 : y, x - 1 : x + width + 1] = Part.CORNICE
            if has_balcony[floor, column]:
                parts[y + height // 2 : y + height + 2, x - 3 : x + width + 3] = Part.BALCONY


def _draw_window(
    parts: np.ndarray,
    x: int,
    y: int,
    width: int,
    height: int,
    *,
    arched: bool = False,
    shutters: bool = False,
) -> None:
    """A window and its sill; (x, y) is its top left corner."""
    parts[y : y + height, x : x + width] = Part.WINDOW
    if arched:
        wall = parts[y - 1, x]
        radius = width / 2
        for row in range(min(int(radius), height // 2)):
            inset = round(radius - np.sqrt(radius**2 - (radius - row - 0.5) ** 2))
            parts[y + row, x : x + inset] = wall
            parts[y + row, x + width - inset : x + width] = wall
    if shutters:
        breadth = max(2, width // 3)
        top = y + (width // 2 if arched else 0)
        parts[top : y + height, x - breadth : x] = Part.SHUTTER
        parts[top : y + height, x + width : x + width + breadth] = Part.SHUTTER
    parts[y + height : y + height + 2, x - 1 : x + width + 1] = Part.SILL


def _draw_shops(
    parts: np.ndarray, rng: np.random.Generator, edges: np.ndarray, top: int, street: int
) -> None:
    """Shop fronts along the street, some with an awning, and one door."""
    first, last = int(edges[0]), int(edges[-1])
    parts[top + 2 : street, first:last] = Part.SHOP
    shops = int(rng.integers(1, 4))
    door = int(rng.integers(0, shops))
    borders = np.linspace(first, last, shops + 1).astype(int)
    for shop, (left, right) in enumerate(itertools.pairwise(borders)):
        parts[top + 8 : street - 3, left + 3 : right - 3] = Part.SHOP_WINDOW
        if shop == door:
            middle = int(rng.integers(left + 8, right - 8))
            parts[top + 7 : street, middle - 6 : middle + 6] = Part.SHOP
            parts[top + 8 : street, middle - 4 : middle + 4] = Part.DOOR
        if rng.random() < 0.5:
            parts[top + 5 : top + 11, left + 2 : right - 2] = Part.AWNING


def _draw_entrance(
    parts: np.ndarray, rng: np.random.Generator, edges: np.ndarray, top: int, street: int
) -> None:
    """A house door in one column and a window in each of the others."""
    door = int(rng.integers(0, len(edges) - 1))
    width = int((edges[1] - edges[0]) * 0.5)
    for column, centre in enumerate(((edges[:-1] + edges[1:]) / 2).astype(int)):
        if column == door:
            parts[top + 3 : street, centre - 6 : centre + 6] = Part.CORNICE
            parts[top + 5 : street, centre - 4 : centre + 4] = Part.DOOR
        else:
            _draw_window(parts, centre - width // 2, top + 6, width, (street - top) // 2)


def _draw_tree(parts: np.ndarray, rng: np.random.Generator, street: int) -> None:
    """A street tree: a trunk and a crown of a few overlapping circles."""
    y, x = np.mgrid[:SIZE, :SIZE]
    foot = int(rng.integers(4, SIZE - 4))
    height, radius = int(rng.integers(18, 30)), int(rng.integers(7, 12))
    parts[street - height : street + 2, foot - 1 : foot + 2] = Part.TRUNK
    for _ in range(6):
        centre_x = foot + rng.uniform(-0.6, 0.6) * radius
        centre_y = street - height + rng.uniform(-0.7, 0.5) * radius
        reach = radius * rng.uniform(0.5, 0.8)
        parts[(x - centre_x) ** 2 + (y - centre_y) ** 2 < reach**2] = Part.TREE
