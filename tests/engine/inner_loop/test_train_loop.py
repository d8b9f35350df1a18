"""The compiled step, against computations by hand in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.outer_loop.run_actions import RunActions
from engine.task import Adam, Phase, Term
from tests.helpers.scale_task import SIZE, Scale, images


def weight(trainer, name="first"):
    return np.ravel(trainer.state.networks[name].trainable_variables[0].numpy())


@pytest.mark.parametrize("mode", ["pytorch", "keras"])
def test_adam_follows_its_definition(make_trainer, noise_pairs, mode):
    data = noise_pairs(size=SIZE)
    # A large epsilon, so that the two conventions differ visibly.
    adam = Adam(learning_rate=0.1, beta1=0.5, beta2=0.9, epsilon=0.3, epsilon_mode=mode)
    trainer = make_trainer(Scale(adam=adam), data, batch_schedule=4, total_examples=20, precision="float64")
    trainer.run()
    w, m, v = np.ones(3), np.zeros(3), np.zeros(3)
    for t in range(1, 6):
        x, target = images(data, range(4 * t - 4, 4 * t))
        gradient = (2 * x * (w * x - target)).sum(axis=(0, 1, 2)) / (4 * SIZE * SIZE * 3)
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        root = np.sqrt(v / (1 - 0.9**t)) if mode == "pytorch" else np.sqrt(v)
        correction = 1 if mode == "pytorch" else np.sqrt(1 - 0.9**t)
        w = w - 0.1 * correction * m / (1 - 0.5**t) / (root + 0.3)
    np.testing.assert_allclose(weight(trainer), w, rtol=0, atol=1e-10)


def test_terms_reach_only_the_networks_they_name(make_trainer, noise_pairs):
    def loss(step):
        both = sum(
            tf.reduce_mean(step.networks[name](step.batch["input"]), axis=[1, 2, 3])
            for name in ("first", "second")
        )
        return {"to_second": Term(both, reaches=("second",)), "constant": tf.constant(3.0)}

    phase = Phase(name="p", loss=loss, updates=("first",), optimizer="adam")
    with pytest.raises(ConfigurationError, match="'to_second' reaches second, but .* updates first"):
        make_trainer(Scale((phase,)), noise_pairs(size=SIZE), total_examples=2).run()

    def with_both(step):
        terms = loss(step)
        return {**terms, "to_both": terms["to_second"].value}

    data = noise_pairs(size=SIZE)
    phase = Phase(name="p", loss=with_both, updates=("first", "second"), optimizer="adam")
    metrics = make_trainer(Scale((phase,)), data, total_examples=1).run().metrics
    # The gradient of one term is the mean input of each channel; the second network gets it twice.
    mean = images(data, [0])[0].mean(axis=(0, 1, 2)) / 3
    norm = np.sqrt(np.sum(mean**2) + np.sum((2 * mean) ** 2))
    assert metrics["grad_norm/p"] == pytest.approx(norm, rel=1e-5)
    # A term that does not depend on the batch counts once, whatever the batch.
    assert metrics["loss/p/constant"] == pytest.approx(3.0)


def test_every_skips_steps_and_ema_averages_those_done(make_trainer, noise_pairs, monkeypatch):
    def loss(step):
        return {"mean": tf.reduce_mean(step.networks["second"](step.batch["target"]), [1, 2, 3])}

    task = Scale()
    phases = (
        Phase(name="fit", loss=task.fit, updates=("first",), optimizer="adam", ema_decay=0.75),
        Phase(name="rare", loss=loss, updates=("second",), optimizer="adam", every=3),
    )
    seen, average = [], np.ones(3)
    trainer = make_trainer(Scale(phases), noise_pairs(size=SIZE), total_examples=6)
    log = RunActions.log

    def watch(actions):
        seen.append(("loss/rare/mean" in actions.last_call.result.metrics, weight(trainer)))
        log(actions)

    monkeypatch.setattr(RunActions, "log", watch)
    trainer.run()
    assert [due for due, _ in seen] == [False, False, True, False, False, True]
    for _, value in seen:
        average = 0.75 * average + 0.25 * value
    averaged = trainer.state.evaluation_networks["first"].trainable_variables[0].numpy()
    np.testing.assert_allclose(np.ravel(averaged), average, rtol=1e-6)
    # The second network was updated twice.
    power = trainer.state.optimizers["adam"].variables["second/beta1_power"]
    assert float(power.numpy()) == pytest.approx(0.5**2)


def test_gather_and_own_are_inverse_and_in_example_order(make_trainer, noise_pairs):
    gathered = {}

    class Remember(Scale):
        def state(self, example):
            return {"ids": tf.Variable(tf.zeros([5], tf.int64), trainable=False)}

        def fit(self, step):
            whole = step.gather(step.batch["id"])  # [global batch]
            step.state["ids"].assign(whole)
            same = tf.reduce_all(step.own(whole)[: tf.shape(step.batch["id"])[0]] == step.batch["id"])
            kept = super().fit(step)["square"]
            return {"square": kept, "same": tf.where(same, 1.0, 0.0) + 0 * kept}

    trainer = make_trainer(
        Remember(),
        noise_pairs(size=SIZE),
        cpu_replicas=3,
        batch_schedule=5,
        total_examples=10,
    )
    metrics = trainer.run().metrics
    gathered = trainer.state.task_state["ids"]
    for copy in gathered.values:  # every replica holds the same
        np.testing.assert_array_equal(copy.numpy(), [5, 6, 7, 8, 9])
    assert metrics["loss/fit/same"] == pytest.approx(1.0)


def test_dropout_differs_between_replicas_and_repeats(make_trainer, noise_pairs):
    class Masks(Scale):
        def state(self, example):
            return {"mask": tf.Variable(tf.zeros([2, SIZE, SIZE, 3]), trainable=False)}

        def fit(self, step):
            dropped = step.networks["first"](tf.ones_like(step.batch["input"]), training=True)
            step.state["mask"].assign(step.gather(tf.cast(dropped != 0, tf.float32)))
            return super().fit(step)

    def masks(steps):
        trainer = make_trainer(
            Masks(noise=True),
            noise_pairs(size=SIZE),
            cpu_replicas=2,
            batch_schedule=2,
            total_examples=2 * steps,
        )
        trainer.run()
        return trainer.state.task_state["mask"].numpy()

    first, again, later = masks(1), masks(1), masks(2)
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert 0.3 < first.mean() < 0.7


def test_one_trace_for_every_batch_size(make_trainer, noise_pairs):
    trainer = make_trainer(
        Scale(),
        noise_pairs(size=SIZE),
        cpu_replicas=2,
        batch_schedule="0:1, 3:4, 11:7, 25:1",
        total_examples=30,
    )
    trainer.run()
    assert trainer.loop.traces == 2  # once on each replica


def test_a_loss_that_reaches_nothing_is_refused(make_trainer, noise_pairs):
    def loss(step):
        return {"none": tf.reduce_mean(step.batch["input"], axis=[1, 2, 3])}

    phase = Phase(name="lost", loss=loss, updates=("second",), optimizer="adam")
    trainer = make_trainer(Scale((phase,)), noise_pairs(size=SIZE), total_examples=1)
    with pytest.raises(ConfigurationError, match="'lost' updates 'second', but none of its losses"):
        trainer.run()


def test_bfloat16_keeps_float32_weights_and_stays_near_float32(make_trainer, noise_pairs, small_pix2pix):
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(
            small_pix2pix(norm="instance", dropout=False),
            noise_pairs(size=32),
            batch_schedule=4,
            total_examples=40,
            precision=precision,
        )
        metrics = trainer.run().metrics
        losses[precision] = [v for k, v in metrics.items() if k.startswith("loss/")]
        network = trainer.state.networks["generator"]
        assert {v.dtype for v in network.trainable_variables} == {"float32"}
    assert network.get_layer("conv").compute_dtype == "bfloat16"
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)
