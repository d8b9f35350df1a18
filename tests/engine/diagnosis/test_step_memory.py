"""The memory of a step by formula, against sums by hand."""

import dataclasses
import math

import pytest

from engine.diagnosis.cpu_process import BYTES_PER_OPERATION, KERNEL_BYTES, process_bytes
from engine.diagnosis.remedies import demand, remedies
from engine.diagnosis.step_memory import StateMemory, accumulated_step_memory, whole_step_memory
from engine.diagnosis.step_trace import trace_step
from engine.graphs.functions import operation_count
from engine.graphs.tensor_memory import peak_bytes
from engine.optimizers import Adam, Lion, Sgd
from tests.engine.diagnosis.conftest import plan_of
from tests.helpers.small_training import SmallPix2Pix


def numbers(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def test_variables_are_those_of_the_networks_and_of_the_optimizers(trace):
    networks = trace.state.networks.values()
    trained = sum(numbers(network.trainable_variables) for network in networks)
    found = StateMemory.of(trace.state)
    weights = [weight.value for network in networks for weight in network.weights]
    assert found.parameters == sum(each.dtype.size * math.prod(each.shape) for each in weights) > 4 * trained
    counters = 2 * 2 * 8  # the powers of both betas, float64, of two networks
    assert found.optimizers == 4 * 2 * trained + counters
    assert found.averages == found.frozen_networks == 0
    assert found.total == trace.state.size_bytes


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [(Adam(amsgrad=True), 3), (Sgd(), 1), (Sgd(momentum=0.0), 0), (Lion(), 1)],
)
def test_each_optimizer_keeps_its_own(experiment, optimizer, slots):
    task = SmallPix2Pix(generator_optimizer=optimizer, discriminator_optimizer=optimizer)
    state = trace_step(dataclasses.replace(experiment, task=task), plan_of(experiment)).state
    trained = sum(numbers(network.trainable_variables) for network in state.networks.values())
    assert StateMemory.of(state).optimizers == pytest.approx(4 * slots * trained, abs=64)


def test_activations_grow_with_the_micro_batch_and_gradients_do_not(trace):
    one, two, four = (whole_step_memory(trace, micro_batch=size) for size in (1, 2, 4))
    assert two.tensors.activations == pytest.approx(2 * one.tensors.activations, rel=0.01)
    assert four.tensors.activations == pytest.approx(4 * one.tensors.activations, rel=0.01)
    networks = trace.state.networks
    assert one.gradients == 4 * max(numbers(network.trainable_variables) for network in networks.values())
    assert four.total == four.state.total + four.tensors.total
    # At least the outputs of both convolutions of the generator live until the backward pass.
    assert one.tensors.activations > 4 * (16 * 16 * 4 + 32 * 32 * 3)


def test_an_unknown_batch_gives_what_a_known_one_gives(experiment, trace):
    """The graph for an unknown batch is another one: TensorFlow cannot infer all sizes in it."""
    spec = experiment.data.example_spec
    known = trace.loop.step_graph(spec, accumulates=False, batch_size=3)
    found, expected = (peak_bytes(graph, batch=3).total for graph in (trace.whole, known))
    assert found == pytest.approx(expected, rel=0.02)


def test_accumulation_takes_the_sums_of_gradients_beside_a_micro_batch(trace):
    model = accumulated_step_memory(trace, most=4)
    whole = whole_step_memory(trace, micro_batch=4)
    assert model.at(1) >= whole.state.total + whole.gradients
    assert model.at(1) < model.at(2) < model.at(4)
    measured = peak_bytes(trace.accumulated, batch=2).total + whole.state.total
    assert measured <= model.at(2) + 1  # the line is nowhere below, up to rounding


def test_less_memory_by_each_remedy(trace):
    planned = demand(trace, micro_batch=4)
    found = {each.name: each.demand() for each in remedies(trace, micro_batch=4)}
    assert list(found) == [
        "{half}",
        "recompute",
        "{half} and recompute",
        "frozen layers (all but the last)",
    ]
    assert found["frozen layers (all but the last)"].whole_bytes < planned.whole_bytes
    # Weights stay float32, and the backward pass of the norms computes in float32.
    assert found["{half}"].whole_bytes < planned.whole_bytes
    assert demand(trace, micro_batch=4) == planned  # nothing was frozen, and the precision is as before


def test_what_an_experiment_does_already_is_no_remedy(experiment):
    thrifty = dataclasses.replace(experiment, precision="bfloat16", recompute=True)
    names = [each.name for each in remedies(trace_step(thrifty, plan_of(thrifty)), micro_batch=1)]
    assert names == ["frozen layers (all but the last)"]


def test_a_process_holds_what_it_held_and_something_for_each_operation(trace):
    found = process_bytes(trace.whole, built_bytes=10**9, state_bytes=10**8)
    assert found == 9 * 10**8 + KERNEL_BYTES + BYTES_PER_OPERATION * operation_count(trace.whole)
