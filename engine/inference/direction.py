"""Which role of a run's data pictures take the place of, when they are translated in a direction."""

from __future__ import annotations

from data.description import DataDescription
from data.roles import INPUT, TARGET
from engine.errors import ConfigurationError
from engine.task import Task


def source_of_direction(direction: str | None, data: DataDescription, task: Task) -> str:
    """The role whose pictures are translated.

    Args:
      direction: "AtoB" or "BtoA"; None is the direction of the run.
      data: of the run.
      task: of the run.

    Raises:
      ConfigurationError: the direction is unknown, or the task translates in the other one only, or makes no
        images.
    """
    if task.target_kind is not None:
        raise ConfigurationError(
            f"{type(task).__name__}: the run predicts labels and makes no images; evaluate it with "
            "python -m engine.evaluate, whose table in RUN/evaluations has the predictions"
        )
    if direction is None:
        return INPUT
    if direction not in ("AtoB", "BtoA"):
        raise ConfigurationError(f"--direction={direction}: unknown; use AtoB or BtoA")
    trained = data.direction or "AtoB"
    if direction != trained and not task.translates_back:
        raise ConfigurationError(
            f"--direction={direction}: the run translates {trained} only; leave it out, or train another run "
            f"with DIRECTION = '{direction}'"
        )
    return INPUT if direction == trained else TARGET
