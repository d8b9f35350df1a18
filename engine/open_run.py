"""Opens a trained run in a notebook or another program, to translate pictures with it.

from engine.open_run import open_run
run = open_run("runs/mine")
picture = run.translate("photo.jpg")  # NumPy, uint8 [H, W, 3]

The program `engine.translate` does the same for files.
"""

from __future__ import annotations

import os

from engine.inference.evaluation_mode import EvaluationMode
from engine.inference.run_translator import translator_of_run
from engine.translation.array_translator import ArrayTranslator
from engine.translation.limits import Limits


def open_run(
    workdir: str | os.PathLike[str],
    *,
    checkpoint: str | int = "latest",
    weights: str | None = None,
    norm_mode: str | None = None,
    dropout: bool = False,
    direction: str | None = None,
    side_vector: str | None = None,
    memory_gib: float = 2.0,
) -> ArrayTranslator:
    """Loads the networks of a run. The data set is not needed.

    Args:
      workdir: run directory.
      checkpoint: "latest", "best" (by the metric that the run names), or a position in examples.
      weights: "averaged", by EMA, or "raw", those in training; None: averaged where the run averages any.
      norm_mode: what batch norm normalises with: "batch_statistics" of each picture, or "moving_statistics".
        None is the setting of the run.
      dropout: keep dropout on, as the reference tests pix2pix.
      direction: "AtoB" or "BtoA", for runs that translate both ways (CycleGAN); None is that of the run.
      side_vector: side information for all pictures, if the networks take a vector: numbers such as "0.3,1",
        or the name of a class of the data set.
      memory_gib: for the tensors of the networks, about; larger pictures are translated in tiles.

    Returns:
      A translator of arrays, tensors, Pillow images and paths; see its `translate`.

    Raises:
      ConfigurationError: the run or an argument cannot be used.
      data.errors.DataError: the run has no dataset.json, as of older versions, and its data set is missing.
    """
    return ArrayTranslator(
        translator_of_run(
            os.path.expanduser(os.fspath(workdir)),
            checkpoint=str(checkpoint),
            mode=EvaluationMode(weights=weights, norm_mode=norm_mode, dropout=dropout),
            direction=direction,
            side_vector=side_vector,
            maps_in_memory=True,
        ),
        Limits(memory_gib=memory_gib),
    )
