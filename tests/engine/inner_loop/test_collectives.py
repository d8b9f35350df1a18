"""How often the replicas communicate in a step, and how many bytes; the expected ones are counted by hand."""

import itertools
from collections import Counter

import pytest

from models.networks.norms import BatchNorm
from tests.helpers.collectives import bytes_of_collectives, graph_of_step
from tests.helpers.traced_steps import SIZE, task_and_data

REPLICAS = 2
FLOAT_BYTES = 4

CASES = {
    # name: gin file, bindings, collectives, terms of the phases, batches of the passes through networks,
    # images of pools
    "batch norm": (
        "pix2pix",
        [],
        2 + 2 * (9 + 2 * 3),
        (2, 2),
        {"generator": [1], "discriminator": [2, 1]},
        0,
    ),
    "instance norm": ("pix2pix", ["NORM = 'instance'"], 2, (2, 2), {}, 0),
    "cyclegan": ("cyclegan", [], 2 + 1, (6, 4), {}, 2),
    "cut": ("cut", [], 2, (2, 3), {}, 0),
    "bicycle_gan": ("bicycle_gan", [], 2, (5, 4), {}, 0),
    "supervised": ("supervised", [], 1 + 2 * 9, (1,), {"generator": [1]}, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_collectives_of_a_step(case):
    name, bindings, collectives, terms, passes, pool_images = CASES[case]
    task, data = task_and_data(name, bindings)
    graph, state = graph_of_step(task, data, replicas=REPLICAS)
    expected = Counter()
    for phase, phase_terms in zip(task.phases(), terms, strict=True):
        weights = [v for network in phase.updates for v in state.networks[network].trainable_variables]
        expected[sum(v.shape.num_elements() for v in weights) + phase_terms] += 1
    for network, batches_of_passes in passes.items():
        norms = [layer for layer in state.networks[network].layers if isinstance(layer, BatchNorm)]
        for layer, batches in itertools.product(norms, batches_of_passes):
            moments = 2 * batches * layer.gamma.shape[0]
            # Mean and variance of each batch on each replica, with its count; then the gradients of both.
            expected[REPLICAS * (moments + 1)] += 1
            expected[moments] += 1
    if pool_images:
        # An image of each replica, with a chance and a slot.
        expected[pool_images * REPLICAS * (SIZE * SIZE * 3 + 2)] += 1
    found = Counter(size / FLOAT_BYTES for size in bytes_of_collectives(graph))
    assert found == expected
    assert found.total() == collectives
