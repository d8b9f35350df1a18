"""The step under XLA: the same results, a compilation for each batch size, and refusals that name why."""

import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.xla import reraise_xla_errors
from engine.errors import ConfigurationError
from engine.experiment import Experiment

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


def test_refused_where_it_cannot_work(make_trainer, noise_pairs, small_pix2pix):
    with pytest.raises(ConfigurationError, match="in which 2 replicas reduce .*'one_device'"):
        make_trainer(
            small_pix2pix(), noise_pairs(size=12), total_examples=2, cpu_replicas=2, jit_compile=True
        )
    with pytest.raises(ConfigurationError, match="LARGEST_MICRO_BATCH = 2 .* splits them"):
        Experiment(
            task=small_pix2pix(),
            data=noise_pairs(),
            total_examples=2,
            jit_compile=True,
            largest_micro_batch=2,
        )
