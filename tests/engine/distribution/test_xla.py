"""The step under XLA: the same results, a compilation for each batch size, and refusals that name why."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.distribution.xla import compiles_with_xla, reraise_xla_errors
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

SETTINGS = {"precision": "float64", "strategy": "one_device", "sample_every": 0, "save_every": 0}


def test_same_results_at_every_batch_size(make_trainer, noise_pairs, small_pix2pix):
    found = []
    for jit_compile in (False, True):
        trainer = make_trainer(
            small_pix2pix(dropout=False),
            noise_pairs(size=12),
            total_examples=10,
            batch_schedule="0:2, 4:3",
            jit_compile=jit_compile,
            **SETTINGS,
        )
        initial = {name: value.numpy() for name, value in trainer.state.variables().items()}
        trainer.run()
        found.append({name: value.numpy() for name, value in trainer.state.variables().items()})
        # Without XLA one trace takes any batch; with it each size has its own.
        assert trainer.loop.traces == (2 if jit_compile else 1)
        with open(trainer.run_directory.console_log) as file:
            assert ("float64, XLA; parameters" in file.read()) == jit_compile
    plain, compiled = found
    assert plain["step"] == compiled["step"] == 4
    moved = 0
    for name, value in plain.items():
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(compiled[name], value, rtol=0, atol=1e-8 * scale, err_msg=name)
        moved += (value != initial[name]).any()
    assert moved > 20


def test_what_xla_does_not_take_is_named(make_trainer, noise_pairs, small_pix2pix):
    class OfPython(small_pix2pix):
        def forward(self, step):
            outputs = super().forward(step)
            tf.py_function(lambda x: None, [outputs["fake"]], [])
            return outputs

    trainer = make_trainer(
        OfPython(dropout=False), noise_pairs(size=12), total_examples=2, jit_compile=True, **SETTINGS
    )
    refusal = "does not compile the operation EagerPyFunc, .*JIT_COMPILE = False"
    with pytest.raises(ConfigurationError, match=refusal):
        trainer.run()


def test_an_operation_that_xla_cannot_do_so_is_named():
    @tf.function(jit_compile=True)
    def enlarged(x):
        size = tf.cast(tf.reduce_sum(x), tf.int32)  # 14, where 4 pixels can become 7 or 8
        filters = tf.ones([2, 2, 1, 1])
        return tf.nn.conv2d_transpose(tf.ones([1, 4, 4, 1]), filters, [1, size, size, 1], 2)

    with pytest.raises(ConfigurationError, match="the operation conv2d_transpose,"), reraise_xla_errors():
        enlarged(tf.constant([14.0]))
    with (
        pytest.raises(tf.errors.InvalidArgumentError),
        reraise_xla_errors(),
    ):  # another error stays what it is
        tf.reshape(tf.ones([3]), [2])


@pytest.fixture(scope="module")
def of_replicas(tmp_path_factory):
    """Trains two steps on so many replicas; gives the trainer afterwards."""

    @functools.cache
    def train(task, replicas, batch, jit_compile):
        set_precision("float64")
        run = RunDirectory(str(tmp_path_factory.mktemp("run")))
        settings = SETTINGS | {"strategy": "mirrored"}
        experiment = Experiment(
            task=task(),
            data=NoisePairs(size=12),
            total_examples=8,
            batch_schedule=batch,
            cpu_replicas=replicas,
            jit_compile=jit_compile,
            evaluate_every=0,
            **settings,
        )
        trainer = Trainer(experiment, run)
        trainer.run()
        return trainer

    return train


def values(trainer):
    return {name: value.numpy() for name, value in trainer.state.variables().items()}


def instance_norm():
    return SmallPix2Pix(norm="instance", dropout=False)


class Pooled(SmallPix2Pix):
    """Its discriminator sees the fakes of all replicas, as CycleGAN's through its pool."""

    def discriminator_loss(self, step):
        everyone = step.gather(step.outputs["fake"])  # [G, H, W, C]
        terms = super().discriminator_loss(step)
        return terms | {"seen": tf.reduce_mean(tf.abs(step.own(everyone)), axis=[1, 2, 3])}


def pooled():
    return Pooled(norm="instance", dropout=False)


def programs(trainer):
    """Names of the programs that XLA compiles in the loop of a trainer, as traced last."""
    concrete = trainer.loop._loop._list_all_concrete_functions()[-1]
    found = concrete.graph.as_graph_def().library.function
    return [f.signature.name for f in found if f.attr["_XlaMustCompile"].b]


UNEVEN = instance_norm, 2, "0:4, 4:3"  # 2 and 2 rows, then 2 and 1
EMPTY = pooled, 3, 4  # 2, 2 and no rows


@pytest.mark.parametrize("case", [UNEVEN, EMPTY])
def test_parts_of_several_replicas_give_the_same_results(case, of_replicas):
    plain, compiled = of_replicas(*case, False), of_replicas(*case, True)
    assert not programs(plain)
    assert compiled.step == plain.step >= 2
    expected = values(plain)
    assert len(expected) > 20
    for name, value in values(compiled).items():
        scale = max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-8 * scale, err_msg=name)


def test_forward_losses_and_backward_are_programs_on_each_replica(of_replicas):
    # Two phases: the forward pass, two losses, and the backward pass of each.
    # The losses of the discriminator that sees all fakes communicate, so they are no programs.
    for case, replicas, phases in ((UNEVEN, 2, 2), (EMPTY, 3, 1)):
        found = programs(of_replicas(*case, True))
        backward = [name for name in found if "backward" in name]
        assert len(found) - len(backward) == len(backward) == replicas * (1 + phases), found


def test_every_replica_has_the_same_variables(of_replicas):
    for variable in of_replicas(*EMPTY, True).state.variables().values():
        copies = [copy.numpy() for copy in getattr(variable, "values", [variable])]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0], err_msg=variable.name)


def test_refused_where_it_cannot_work(make_trainer, noise_pairs, small_pix2pix):
    trainer = make_trainer(
        small_pix2pix(), noise_pairs(size=12), total_examples=2, cpu_replicas=2, jit_compile=True
    )
    with pytest.raises(
        ConfigurationError, match="in which replicas communicate, as batch norm .*'one_device'"
    ):
        trainer.run()
    workers = dataclasses.replace(trainer.devices, is_multi_worker=True)
    with pytest.raises(ConfigurationError, match="not on several workers"):
        compiles_with_xla(workers, wanted=True)
    with pytest.raises(ConfigurationError, match="LARGEST_MICRO_BATCH = 2 .* splits them"):
        Experiment(
            task=small_pix2pix(),
            data=noise_pairs(),
            total_examples=2,
            jit_compile=True,
            largest_micro_batch=2,
        )
