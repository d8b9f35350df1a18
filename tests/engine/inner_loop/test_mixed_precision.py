"""float16 with its loss scale, against a simulation of the scale and of Adam in NumPy."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.errors import DivergenceError
from engine.inner_loop import loss_scale
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.storage import checkpoints
from engine.storage.run_directory import read_rows
from engine.task import Adam, Phase, Task
from models.networks.layers import image_input, variable_dtype
from models.networks.norms import normalise
from models.regularisation import Regularisation
from tests.helpers.small_training import NoisePairs

SIZE = 12
SETTINGS = {"precision": "float16", "sample_every": 0, "save_every": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gains(NoisePairs):
    """Inputs of ones; the target of example k is gains[k] in one corner, else 0."""

    gains: tuple[float, ...]
    size: int = SIZE

    @classmethod
    def of(cls, gains):
        return cls(gains=tuple(map(float, gains)), train_examples=len(gains))

    def example(self, index):
        gain = tf.gather(tf.constant(self.gains), tf.cast(index, tf.int32) % len(self.gains))
        corner = tf.scatter_nd([[0, 0, 0]], [gain], [SIZE, SIZE, 3])
        return {"input": tf.ones([SIZE, SIZE, 3]), "target": corner, "id": index}


class Gain(Task):
    """loss = gain * output in the corner, so that the gradient is the gain and overflows when scaled."""

    optimizers = {"adam": Adam(learning_rate=0.01, beta1=0.5, beta2=0.9, epsilon=0.3)}

    def networks(self, example):
        image = image_input(3)
        x = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer="ones", name="conv")(image)
        x = keras.layers.Activation("linear", dtype=variable_dtype(), name="out")(x)
        image_seen = image_input(3)
        return {
            "net": keras.Model(image, x, name="net"),
            "seen": keras.Model(image_seen, normalise(image_seen, "batch", name="norm"), name="seen"),
        }

    def state(self, example):
        return {"last": tf.Variable(-1, dtype=tf.int64, trainable=False)}

    def phases(self):
        return (Phase(name="fit", loss=self.loss, updates=("net",), optimizer="adam"),)

    def loss(self, step):
        step.networks["seen"](step.batch["target"], training=True)
        step.state["last"].assign(tf.reduce_max(step.gather(step.batch["id"])))
        output = step.networks["net"](step.batch["input"], training=True)
        return {"gain": tf.reduce_sum(output * step.batch["target"], axis=[1, 2, 3])}

    def translate(self, networks, batch):
        return networks["net"](batch["input"], training=False)


class Simulated:
    """The scale and Adam, for one weight whose gradient is given."""

    def __init__(self, w=1.0):
        self.scale, self.in_a_row, self.overflows = 2.0**15, 0, 0
        self.w, self.m, self.v, self.t = w, 0.0, 0.0, 0

    def step(self, gradients, *, to_double):
        """`gradients`: each example's part of the mean gradient."""
        with np.errstate(over="ignore"):
            overflow = np.isinf(np.float16(np.float32(gradients) * self.scale)).any()
        if overflow:
            self.scale, self.in_a_row, self.overflows = max(1.0, self.scale / 2), 0, self.overflows + 1
            return False
        self.in_a_row += 1
        if self.in_a_row == to_double:
            self.scale, self.in_a_row = 2 * self.scale, 0
        g, self.t = np.sum(gradients), self.t + 1
        self.m, self.v = 0.5 * self.m + 0.5 * g, 0.9 * self.v + 0.1 * g**2
        self.w -= 0.01 * self.m / (1 - 0.5**self.t) / (np.sqrt(self.v / (1 - 0.9**self.t)) + 0.3)
        return True


def values(trainer):
    return {name: variable.numpy() for name, variable in trainer.state.variables().items()}


def steps_of(trainer, *, steps, batch=1, largest=None):
    """Metrics and all variables after each of the steps, from the start."""
    plan = BatchLayout(global_batch=batch, replicas=trainer.devices.replicas, largest_micro_batch=largest)
    batches = distributed_batches(trainer.devices, trainer.experiment.data, position_examples=0, plan=plan)
    for step in range(steps):
        result = trainer.loop.run(batches, num_steps=1, step=step, examples=step * batch, layout=plan)
        yield result, values(trainer)


def test_scale_follows_its_simulation(make_trainer, monkeypatch):
    monkeypatch.setattr(loss_scale, "UPDATES_TO_DOUBLE", 3)
    gains = 2.0 ** np.random.default_rng(0).integers(-4, 8, 40)
    trainer = make_trainer(Gain(), Gains.of(gains), total_examples=1, **SETTINGS)
    simulated, scales = Simulated(), []
    for gain, (result, variables) in zip(gains, steps_of(trainer, steps=40), strict=True):
        assert result.finite and result.metrics["loss_scale/fit"] == simulated.scale
        scales.append(simulated.scale)
        applied = simulated.step([gain], to_double=3)
        norm = result.metrics["grad_norm/fit"]  # of three weights; not scaled
        assert norm == pytest.approx(np.sqrt(3) * gain, rel=1e-6) if applied else np.isinf(norm)
        assert result.metrics["overflows/fit"] == simulated.overflows
        assert variables["loss_scale/fit/updates_in_a_row"] == simulated.in_a_row
        kernel = variables["network/net/000_kernel"][0, 0]
        np.testing.assert_allclose(kernel[:, 0], simulated.w, rtol=1e-5)
        np.testing.assert_array_equal(kernel[:, 1:], 1.0)
    assert simulated.overflows > 5 and len(set(scales)) > 4
    rises = [b > a for a, b in zip(scales, scales[1:], strict=False)]
    assert any(rises) and not all(rises)


@pytest.mark.parametrize(("replicas", "largest"), [(1, 1), (2, None), (3, None), (2, 1)])
def test_overflow_on_one_replica_leaves_the_step_out_on_all(make_trainer, replicas, largest):
    """Of the second step's six examples one overflows: the last of all, or the second replica's of three."""
    gains = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75] * 3
    gains[6 + {1: 5, 2: 5, 3: 3}[replicas]] = 32.0
    trainer = make_trainer(Gain(), Gains.of(gains), cpu_replicas=replicas, total_examples=1, **SETTINGS)
    simulated, history = Simulated(), []
    for step, (result, variables) in enumerate(steps_of(trainer, steps=3, batch=6, largest=largest)):
        assert result.finite and result.metrics["loss_scale/fit"] == simulated.scale
        applied = simulated.step(np.array(gains[6 * step : 6 * step + 6]) / 6, to_double=2000)
        assert applied == (step != 1)
        np.testing.assert_allclose(variables["network/net/000_kernel"][0, 0, :, 0], simulated.w, rtol=1e-3)
        history.append(variables)
        for name, variable in trainer.state.variables().items():
            for copy in trainer.devices.strategy.experimental_local_results(variable):
                np.testing.assert_array_equal(copy.numpy(), variables[name], err_msg=name)
    before, after = history[:2]
    for name, value in before.items():
        if name not in ("best", "loss_scale/fit/scale", "loss_scale/fit/overflows"):
            expected = 0 if name == "loss_scale/fit/updates_in_a_row" else value
            np.testing.assert_array_equal(after[name], expected, err_msg=name)
    assert after["loss_scale/fit/scale"] == 2.0**14 and after["loss_scale/fit/overflows"] == 1
    assert before["task/last"] == 5 and history[2]["task/last"] == 17
    moving = next(name for name in before if "moving_mean" in name)
    assert before[moving][0] != 0 and history[2][moving][0] != before[moving][0]


def test_loop_goes_on_after_an_overflow_and_ends_at_a_loss_that_is_not_finite(make_trainer):
    trainer = make_trainer(Gain(), Gains.of([1.0, 64.0, 1.0, 1.0, np.inf, 1.0]), total_examples=6, **SETTINGS)
    plan = BatchLayout(global_batch=1, replicas=1)
    batches = distributed_batches(trainer.devices, trainer.experiment.data, position_examples=0, plan=plan)
    result = trainer.loop.run(batches, num_steps=6, step=0, examples=0, layout=plan)
    assert (result.steps, result.finite) == (5, False)
    # A loss that is not finite by itself says nothing about the scale.
    assert values(trainer)["loss_scale/fit/scale"] == 2.0**14
    assert values(trainer)["loss_scale/fit/overflows"] == 1
    assert values(trainer)["loss_scale/fit/updates_in_a_row"] == 0
    assert values(trainer)["task/last"] == 3


def test_smallest_scale_that_still_overflows_diverges(make_trainer):
    trainer = make_trainer(Gain(), Gains.of([2.0**17]), total_examples=100, **SETTINGS)
    with pytest.raises(DivergenceError, match="step 16: grad_norm/fit not finite"):
        trainer.run()
    rows = read_rows(trainer.run_directory.train_log)
    assert [row["loss_scale/fit"] for row in rows] == [2.0**k for k in range(15, 0, -1)]
    assert rows[-1]["grad_norm/fit"] is None and rows[-1]["overflows/fit"] == 15
    assert values(trainer)["loss_scale/fit/scale"] == 1


def test_a_restart_goes_on_counting(make_trainer, monkeypatch):
    monkeypatch.setattr(loss_scale, "UPDATES_TO_DOUBLE", 5)
    data = Gains.of([1.0, 1.5, 64.0, 0.5, 1.0, 0.25, 1.0, 1.5, 0.125, 1.0, 1.0])
    whole = make_trainer(Gain(), data, total_examples=11, **SETTINGS | {"save_every": 6})
    whole.run()
    again = make_trainer(Gain(), data, total_examples=11, **SETTINGS)
    checkpoints.restore(again.state, whole.run_directory.checkpoints, 6)
    assert values(again)["loss_scale/fit/updates_in_a_row"] == 3
    assert values(again)["loss_scale/fit/scale"] == 2.0**14
    again.run()
    expected = values(whole)
    assert expected["loss_scale/fit/scale"] == 2.0**15 and expected["loss_scale/fit/updates_in_a_row"] == 3
    for name, value in values(again).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    rows, rows_again = (
        [{k: v for k, v in row.items() if "/fit" in k} for row in read_rows(t.run_directory.train_log)]
        for t in (whole, again)
    )
    assert rows_again == rows[6:]


def test_float16_stays_near_float32_with_gradients_of_gradients_and_noise_scale(
    make_trainer, noise_pairs, small_pix2pix, monkeypatch
):
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**9)  # with 2**15 it leaves steps out that float32 makes
    seen = {}
    for precision in ("float32", "float16"):
        task = small_pix2pix(
            norm="instance", dropout=False, regularisation=Regularisation(r1=0.1, r1_every=1)
        )
        trainer = make_trainer(
            task,
            noise_pairs(size=32),
            batch_schedule=2,
            total_examples=1,
            measure_noise_scale=True,
            precision=precision,
        )
        *_, (result, variables) = steps_of(trainer, steps=20, batch=2)
        wanted = ("loss/", "grad_norm/")
        seen[precision] = {name: v for name, v in result.metrics.items() if name.startswith(wanted)}
        for phase, noise_scale in trainer.state.noise_scales.items():
            seen[precision][f"noise/{phase}"] = noise_scale.value().trace_covariance
        scales = {name: value for name, value in variables.items() if name.startswith("loss_scale/")}
        if precision == "float32":
            assert not scales and "loss_scale/r1" not in result.metrics
        else:
            assert (
                len(scales) == 9
                and [scales[f"loss_scale/{p.name}/overflows"] for p in task.phases()] == [0] * 3
            )
        network = trainer.state.networks["generator"]
        assert {v.dtype for v in network.trainable_variables} == {"float32"}
    assert network.get_layer("conv").compute_dtype == "float16"
    assert "noise/r1" in seen["float32"] and "loss/r1/penalty" in seen["float32"]
    assert seen["float16"] != seen["float32"]
    for name, value in seen["float32"].items():
        assert seen["float16"][name] == pytest.approx(value, rel=0.01), name
