"""The weights of the networks in a run's checkpoint, without a trainer around them."""

from __future__ import annotations

import numpy as np

from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.inference.evaluation_mode import AVERAGED, RAW
from engine.inference.restored_run import find_checkpoint, recorded_experiment
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory


def stored_weights(
    workdir: str, *, checkpoint: str, weights: str | None
) -> tuple[str, dict[str, dict[str, np.ndarray]]]:
    """Reads the weights of a run's networks.

    It builds the networks to learn the names of their weights, and leaves the configuration that is loaded.

    Args:
      workdir: run directory.
      checkpoint: "latest", "best", or a position in examples.
      weights: "averaged", by EMA, or "raw"; None: averaged where the run averages any.

    Returns:
      What was read, in words; and network -> path of the weight -> array.

    Raises:
      ConfigurationError: there is no such run or checkpoint, or it keeps no averages.
      data.errors.DataError: the run has no dataset.json, and its data set is missing.
    """
    run = RunDirectory(workdir)
    experiment = recorded_experiment(run, loader.load_another_text)
    directory, position = find_checkpoint(run, checkpoint)
    stored = checkpoints.read_networks(directory, position)
    networks = experiment.task.networks(experiment.data.example_spec)
    if weights == AVERAGED and not any(name.startswith("averaged/") for name in stored):
        raise ConfigurationError(f"{workdir}: keeps no moving averages; take its raw weights")
    kinds = ("network",) if weights == RAW else ("averaged", "network")
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, network in networks.items():
        arrays = next((stored[key] for kind in kinds if (key := f"{kind}/{name}") in stored), {})
        if len(arrays) != len(network.weights):
            raise ConfigurationError(
                f"{directory}: its network {name} has {len(arrays)} weights, but the run's configuration "
                f"makes {len(network.weights)}; use the code that it was trained with"
            )
        found[name] = {weight.path: arrays[number] for number, weight in enumerate(network.weights)}
    return f"{workdir} at {position} examples", found
