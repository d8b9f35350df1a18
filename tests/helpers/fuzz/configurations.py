"""Random configurations of whole runs, each a pure function of its seed."""

from __future__ import annotations

import dataclasses
import random

from tests.helpers.fuzz.pictures import Pictures, chance, draw_pictures
from tests.helpers.fuzz.settings import (
    TASKS,
    draw_augmentations,
    draw_data_settings,
    draw_losses,
    draw_networks,
    draw_precision,
    draw_schedule,
    draw_sizes,
)

NAMES = (
    "run",
    "run [copy]",
    "a\\b",
    "100% %s {0}",
    "Übung é 画",
    " x ",
    'it\'s "q"',
    "-rf",
    "a\nb",
    "x=1,y;#",
    "x.",
)
"""Names of the folder that holds everything of a configuration."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is prepared, trained, stopped, resumed, evaluated and translated.

    Attributes:
      seed: it was drawn with.
      task: name of the gin file of the task.
      name: of the folder that holds everything.
      pictures: what is prepared.
      prepare: further flags of data.prepare.
      gin_files: of the run.
      gin_params: of the run; data set and replicas aside.
      replicas: until the run is stopped, and after it.
      stop_examples: position from which the run is stopped.
      direction: of the run.
      translate: further flags of engine.translate.
    """

    seed: int
    task: str
    name: str
    pictures: Pictures
    prepare: tuple[tuple[str, str], ...]
    gin_files: tuple[str, ...]
    gin_params: tuple[str, ...]
    replicas: tuple[int, int]
    stop_examples: int
    direction: str
    translate: tuple[tuple[str, str], ...]

    @property
    def summary(self) -> str:
        """A few words for a table."""
        pictures = self.pictures
        precision = next((p.split('"')[1] for p in self.gin_params if p.startswith("PRECISION")), "float32")
        return (
            f"{self.task} {pictures.layout} {pictures.dtype}{pictures.extension} x{pictures.count} "
            f"{precision} replicas {self.replicas[0]}-{self.replicas[1]}"
        )


def draw(seed: int) -> Configuration:
    """The configuration of a seed. Most of them can be trained."""
    drawn = random.Random(f"fuzz {seed}")
    task = drawn.choice(list(TASKS))
    layout = drawn.choice(TASKS[task][1])
    added_files = []
    if task in ("pix2pix", "supervised") and chance(drawn, 0.15):
        layout, added_files = "single", ["gin/single.gin"]
    pictures, prepare, side_params = draw_pictures(drawn, task, layout)
    schedule_files, schedule_params = draw_schedule(drawn, task)
    augmentation_files, augmentation_params = draw_augmentations(drawn)
    direction = drawn.choice(["AtoB", "AtoB", "BtoA"]) if layout != "single" else "AtoB"
    replicas = drawn.choice([1, 1, 1, 2, 3]), drawn.choice([1, 1, 1, 1, 2, 3])
    total = drawn.randint(5, 12)
    params = [
        *([f'DIRECTION = "{direction}"'] if direction != "AtoB" else []),
        f"TOTAL_EXAMPLES = {total}",
        f"SEED = {drawn.choice([0, 1, 2**31])}",
        f"STEPS_PER_LOOP = {drawn.choice([1, 1, 2])}",
        "LOG_EVERY = 1",
        f"SAVE_EVERY = {drawn.choice([0, 1, 3])}",
        f"SAMPLE_EVERY = {drawn.choice([0, 0, 4])}",
        f"EVALUATE_EVERY = {drawn.choice([0, 0, 3])}",
        *draw_sizes(drawn, task),
        *draw_networks(drawn, task),
        *draw_losses(drawn, task),
        *draw_precision(drawn, max(replicas)),
        *side_params,
        *draw_data_settings(drawn, pictures),
        *augmentation_params,
        *schedule_params,
    ]
    translate = [("raw", "true")] if chance(drawn, 0.8) else []
    if chance(drawn, 0.3):
        translate.append(("resize", "as_trained"))
    if task == "bicycle_gan" and chance(drawn, 0.5):
        translate += [("samples", "2"), ("seed", "3")]
    if pictures.side in ("vector", "classes") and side_params:
        translate.append(("side_vector", "0.3,1" if pictures.side == "vector" else "a"))
    return Configuration(
        seed=seed,
        task=task,
        name=drawn.choice(["run", *NAMES]),
        pictures=pictures,
        prepare=prepare,
        gin_files=(f"gin/{task}.gin", *added_files, *augmentation_files, *schedule_files),
        gin_params=tuple(params),
        replicas=replicas,
        stop_examples=drawn.randint(1, total // 2),
        direction=direction,
        translate=tuple(translate),
    )
