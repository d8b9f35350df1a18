"""A traced step of a small pix2pix that the tests of the doctor's parts share."""

import pytest

from engine.diagnosis.step_trace import trace_step
from engine.experiment import Experiment
from engine.outer_loop.run_plan import plan_run
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

SIZE = 32


@pytest.fixture(scope="package")
def experiment():
    """pix2pix with two layers a network."""
    return Experiment(
        task=SmallPix2Pix(),
        data=NoisePairs(size=SIZE),
        total_examples=120,
        batch_schedule=4,
        feature_extractor=None,
    )


def plan_of(experiment):
    return plan_run(experiment, replicas=1, largest_micro_batch=None, static_shapes=False)


@pytest.fixture(scope="package")
def trace(experiment):
    """Its step."""
    return trace_step(experiment, plan_of(experiment))
