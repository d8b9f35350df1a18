"""The files of gin/optimizers, and the macros OPTIMIZER and LEARNING_RATE_SCHEDULE."""

import pytest

from engine.gin_config import loader
from engine.optimizers import Adam, Lion, RmsProp, Sgd
from engine.schedules import LinearDecay, ReduceOnPlateau

KINDS = {"sgd": Sgd, "rmsprop": RmsProp, "lion": Lion, "amsgrad": Adam}
TASKS = ("pix2pix", "supervised", "cyclegan", "cut", "bicycle_gan", "super_resolution", "colourisation")


def optimizers(*files, params=()):
    experiment, text = loader.load_experiment(
        gin_files=[f"gin/{file}.gin" for file in files], gin_params=params
    )
    return list(experiment.task.optimizers.values()), text


@pytest.mark.parametrize("name", KINDS)
def test_a_file_replaces_all_optimizers_and_keeps_the_schedule(name):
    found, text = optimizers("pix2pix", f"optimizers/{name}", params=["LEARNING_RATE = 0.03"])
    assert len(found) == 2
    for settings in found:
        assert type(settings) is KINDS[name] and settings.learning_rate == 0.03
        assert isinstance(settings.schedule, LinearDecay)
        assert getattr(settings, "amsgrad", False) == (name == "amsgrad")
    again = loader.load_experiment_text(text, where="config.gin")
    assert list(again.task.optimizers.values()) == found


@pytest.mark.parametrize("task", TASKS)
def test_every_task_takes_another_optimizer_and_another_schedule(task):
    files = (task, "optimizers/sgd", "schedules/reduce_on_plateau")
    found, _ = optimizers(*files, params=['schedules.ReduceOnPlateau.metric = "kid"'])
    assert {type(settings) for settings in found} == {Sgd}
    assert all(isinstance(settings.schedule, ReduceOnPlateau) for settings in found)
    found, _ = optimizers(task)
    assert {type(settings) for settings in found} == {Adam}
    assert all(isinstance(settings.schedule, LinearDecay) for settings in found)
