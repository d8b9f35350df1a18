"""Invariant 2: any number of micro-batches gives the losses and weights of one."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.errors import ConfigurationError
from engine.task import Phase
from models.pix2pix import Pix2Pix
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.small_cyclegan_task import SmallCycleGan


@pytest.fixture(scope="module")
def in_whole_batches():
    """Function: what `compute()` returned for this name; several cases compare with it."""
    results = {}

    def result(name, compute):
        if name not in results:
            results[name] = compute()
        return results[name]

    return result


def test_accumulation_equals_the_whole_batch_over_20_steps(make_trainer, noise_pairs):
    task = Pix2Pix(
        generator="unet_32", generator_filters=2, discriminator_filters=2, norm="instance", dropout=False
    )
    trainer = make_trainer(task, noise_pairs(size=32), total_examples=1, precision="float64")
    whole = train(trainer, plans_of(15, None, 1))
    assert np.ptp(whole[0][:, 0]) > 0.01  # it does train
    traces = trainer.loop.traces
    for largest, accumulation in ((8, 2), (5, 3), (3, 5)):
        plans = plans_of(15, largest, 1)
        assert plans[0].accumulation == accumulation
        assert_same(train(trainer, plans), whole)
    assert trainer.loop.traces == traces + 2  # each of two phases once, whatever the count


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.soak), 3])
def test_uneven_accumulation_on_replicas_across_a_batch_boundary(
    make_trainer, noise_pairs, small_pix2pix, in_whole_batches, replicas
):
    task, data = small_pix2pix(norm="instance", dropout=False), noise_pairs(size=32)
    settings = {"total_examples": 1, "precision": "float64"}
    plans = plans_of(7, None, 1, steps=10) + plans_of(16, None, 1, steps=10)
    whole = in_whole_batches("uneven", lambda: train(make_trainer(task, data, **settings), plans))
    trainer = make_trainer(task, data, cpu_replicas=replicas, **settings)
    # In pieces of 1: seven micro-batches on one replica; 4 on two, the last half empty; 3 on three.
    for largest in (1, 2, 3):
        plans = plans_of(7, largest, replicas, steps=10) + plans_of(16, largest, replicas, steps=10)
        assert plans[-1].accumulation > 1
        assert_same(train(trainer, plans), whole)


@pytest.mark.parametrize("replicas", [1, 2])
def test_static_shapes_change_nothing(make_trainer, noise_pairs, small_pix2pix, in_whole_batches, replicas):
    task, data = small_pix2pix(norm="batch", dropout=False), noise_pairs(size=32)
    settings = {"total_examples": 1, "precision": "float64"}
    plans = plans_of(7, None, 1, steps=3)
    whole = in_whole_batches("static", lambda: train(make_trainer(task, data, **settings), plans))
    trainer = make_trainer(task, data, cpu_replicas=replicas, **settings)
    plan = BatchLayout(global_batch=7, replicas=replicas, static_shapes=True)
    shapes = []
    forward = trainer.experiment.task.forward
    trainer.experiment.task.forward = lambda step: (shapes.append(step.batch["input"].shape), forward(step))[
        1
    ]
    run, kinds = trainer.devices.strategy.run, set()

    def watched(fn, args=(), kwargs=None):
        kinds.update(type(x) for x in tf.nest.flatten((args, kwargs)) if x is not None)
        return run(fn, args, kwargs)

    trainer.devices.strategy.run = watched
    assert_same(train(trainer, [plan] * 3), whole)
    # A TPU's strategy makes a tensor of whatever it is given, and none can be made of a phase.
    assert all(issubclass(kind, (tf.Tensor, tf.distribute.DistributedValues)) for kind in kinds), kinds
    assert set(map(tuple, shapes)) == {(-(-7 // replicas), 32, 32, 3)}


@pytest.mark.parametrize("replicas", [1, 2])
def test_image_pool_and_constant_outputs_under_accumulation(
    make_trainer, noise_pairs, in_whole_batches, replicas
):
    """CycleGAN's order: the discriminators see fakes made before the generators' update."""
    data, settings = noise_pairs(size=16), {"total_examples": 1, "precision": "float64"}
    plans = plans_of(5, None, 1, steps=4)
    whole = in_whole_batches("pool", lambda: train(make_trainer(SmallCycleGan(), data, **settings), plans))
    trainer = make_trainer(SmallCycleGan(), data, cpu_replicas=replicas, **settings)
    for static_shapes in (False, True):
        plans = plans_of(5, 1, replicas, steps=4, static_shapes=static_shapes)
        assert_same(train(trainer, plans), whole)
    # On two replicas: a whole step of static shapes, the second with one example less.
    assert_same(train(trainer, plans_of(5, None, replicas, steps=4, static_shapes=True)), whole)
    assert np.all(np.any(whole[1]["task/pool"], axis=(1, 2, 3)))  # the pool is full


def test_a_forward_pass_made_again_has_the_weights_of_the_step_s_start(make_trainer, noise_pairs):
    """Two phases that differentiate through forward, the first of which changes what it uses."""

    class Both(SmallCycleGan):
        def phases(self):
            generators, discriminators = super().phases()
            first = dataclasses.replace(generators, name="first", updates=("a_to_b",), ema_decay=0.9)
            second = dataclasses.replace(generators, name="second", updates=("b_to_a",))
            return first, second, discriminators

    data, settings = noise_pairs(size=16), {"total_examples": 1, "precision": "float64"}
    trainer = make_trainer(Both(), data, **settings)
    whole = train(trainer, plans_of(6, None, 1, steps=4))
    assert_same(train(trainer, plans_of(6, 2, 1, steps=4)), whole)
    assert any(name.startswith("averaged/a_to_b") for name in whole[1])


def test_batch_norm_normalises_micro_batches_and_moves_once(make_trainer, noise_pairs, small_pix2pix):
    """What micro-batching means for batch norm: moments of each micro-batch, one move by their mean."""
    task, data = small_pix2pix(norm="batch", dropout=False), noise_pairs(size=32)
    trainer = make_trainer(task, data, total_examples=1, precision="float64")
    generator = trainer.state.networks["generator"]
    images = next(iter(data.batches(position_examples=0, global_batch=5)))["input"].numpy()
    features = generator.get_layer("conv")(images.astype("float64")).numpy()
    pieces = (features[:2], features[2:4], features[4:])
    _, values = train(trainer, plans_of(5, 2, 1, steps=1))
    moving = {name: v for name, v in values.items() if "network/generator" in name and "moving" in name}
    means = sum(len(piece) / 5 * piece.mean(axis=(0, 1, 2)) for piece in pieces)
    variances = sum(
        len(piece) / 5 * piece.reshape(-1, piece.shape[-1]).var(axis=0, ddof=1) for piece in pieces
    )
    (mean,) = (v for name, v in moving.items() if "mean" in name)
    (variance,) = (v for name, v in moving.items() if "variance" in name)
    np.testing.assert_allclose(mean, 0.1 * means, rtol=1e-10)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * variances, rtol=1e-10)


def test_synchronised_batch_norm_spans_the_replicas_of_a_micro_batch(
    make_trainer, noise_pairs, small_pix2pix
):
    """Micro-batches of 2 x 2 examples on two replicas are those of 4 on one."""
    task, data = small_pix2pix(norm="batch", dropout=False), noise_pairs(size=32)
    settings = {"total_examples": 1, "precision": "float64"}
    one = train(make_trainer(task, data, **settings), plans_of(8, 4, 1, steps=4))
    two = make_trainer(task, data, cpu_replicas=2, **settings)
    assert_same(train(two, plans_of(8, 2, 2, steps=4)), one)


def test_dropout_differs_between_micro_batches_and_repeats(make_trainer, noise_pairs):
    class Masks(SmallCycleGan):
        """Remembers the masks of the forward pass in each phase, by the order of examples."""

        def networks(self, example):
            networks = super().networks(example)
            image = keras.Input((16, 16, 3))
            networks["a_to_b"] = keras.Sequential([image, keras.layers.Dropout(0.5), networks["a_to_b"]])
            return networks

        def state(self, example):
            masks = {
                name: tf.Variable(tf.zeros([4, 16, 16, 3]), trainable=False) for name in ("first", "second")
            }
            return super().state(example) | masks | {"calls": tf.Variable(0, trainable=False)}

        def phases(self):
            generators, _ = super().phases()
            first = Phase(name="first", loss=self.first, updates=("a_to_b",), optimizer="generators")
            second = Phase(name="second", loss=self.second, updates=("b_to_a",), optimizer="generators")
            return first, second

        def forward(self, step):
            dropped = step.networks["a_to_b"].layers[0](tf.ones_like(step.batch["input"]), training=True)
            return super().forward(step) | {"mask": tf.cast(dropped != 0, tf.float32)}

        def note(self, step, name):
            rows = tf.cast(step.batch["id"] % 4, tf.int32)
            step.state[name].assign(
                tf.tensor_scatter_nd_update(step.state[name], rows[:, tf.newaxis], step.outputs["mask"])
            )
            return self.generate(step)

        def first(self, step):
            return self.note(step, "first")

        def second(self, step):
            return self.note(step, "second")

    trainer = make_trainer(Masks(), noise_pairs(size=16), total_examples=1)
    _, values = train(trainer, plans_of(4, 1, 1, steps=1))
    masks = values["task/first"]
    assert 0.3 < masks.mean() < 0.7
    for a in range(4):
        for b in range(a):
            assert not np.array_equal(masks[a], masks[b])
    np.testing.assert_array_equal(values["task/second"], masks)  # the forward pass made again
    _, again = train(trainer, plans_of(4, 1, 1, steps=1))
    np.testing.assert_array_equal(again["task/first"], masks)


def test_scalar_outputs_of_forward_are_refused(make_trainer, noise_pairs):
    class Scalar(SmallCycleGan):
        def forward(self, step):
            return super().forward(step) | {"mean": tf.reduce_mean(step.batch["input"])}

    trainer = make_trainer(Scalar(), noise_pairs(size=16), total_examples=1)
    with pytest.raises(ConfigurationError, match="'mean' is a scalar; under accumulation"):
        train(trainer, plans_of(4, 2, 1, steps=1))
