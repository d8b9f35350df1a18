"""A batch that changes while it trains: positions, examples, rates, noise scale, traces, memory."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import engine.train
from engine.adaptive_batch import GrowOnPlateau
from engine.batching.memory_model import MemoryModel
from engine.errors import ConfigurationError
from engine.inner_loop.train_loop import TrainLoop
from engine.memory.probe import Probe
from engine.outer_loop.run_actions import RunActions
from engine.storage.run_directory import RunDirectory, read_rows
from engine.task import Adam, Phase, Task

SIZE = 16


class Linear(Task):
    """One weight w for each channel and the loss w * mean input: the gradient is the mean input.

    Its state counts how often each example was seen.
    """

    def __init__(self, *, epochs_of=12, adam=None, every=1, ema_decay=None):
        self.optimizers = {"adam": adam or Adam(learning_rate=0.01, beta1=0.9, beta2=0.9)}
        self._examples = epochs_of
        self._every = every
        self._ema_decay = ema_decay

    def networks(self, example):
        image = keras.Input((SIZE, SIZE, 3), dtype=keras.config.floatx())
        layer = keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones")
        return {"net": keras.Model(image, layer(image))}

    def state(self, example):
        return {"seen": tf.Variable(tf.zeros([self._examples], tf.int32), trainable=False)}

    def phases(self):
        return (
            Phase(
                name="fit",
                loss=self.fit,
                updates=("net",),
                optimizer="adam",
                every=self._every,
                ema_decay=self._ema_decay,
            ),
        )

    def fit(self, step):
        ids = tf.cast(step.gather(step.batch["id"]), tf.int32) % self._examples
        seen = step.state["seen"]
        seen.assign(tf.tensor_scatter_nd_add(seen, ids[:, tf.newaxis], tf.ones_like(ids)))
        return {
            "mean": tf.reduce_mean(step.networks["net"](step.batch["input"]), axis=[1, 2, 3]),
            "id": tf.cast(step.batch["id"] % self._examples, keras.config.floatx()),
        }

    def translate(self, networks, batch):
        return networks["net"](batch["input"])


def rows_of(trainer):
    return read_rows(trainer.run_directory.train_log)


def test_train_log_shows_the_sizes_at_their_positions(make_trainer, noise_pairs):
    trainer = make_trainer(
        Linear(epochs_of=250),
        noise_pairs(size=SIZE, train_examples=250),
        batch_schedule="0:1, 40:2, 101:7, 200:3",
        total_examples=220,
        cpu_replicas=2,
        steps_per_loop=5,
    )
    trainer.run()
    rows = rows_of(trainer)
    # 40 steps of 1; 31 of 2, the last of which starts at 100; 14 of 7 from 102 on; 6 of 3 from 200 on.
    expected = [1] * 40 + [2] * 31 + [7] * 14 + [3] * 7
    assert [row["global_batch"] for row in rows] == expected
    assert [row["examples"] for row in rows] == list(itertools.accumulate(expected))
    assert [row["step"] for row in rows] == list(range(1, len(expected) + 1))
    assert {(row["global_batch"], row["per_replica_batch"]) for row in rows} == {
        (1, 1),
        (2, 1),
        (7, 4),
        (3, 2),
    }
    assert all(row["replicas"] == 2 and row["accumulation"] == 1 for row in rows)
    seen = trainer.state.task_state["seen"].numpy()
    assert seen.sum() == rows[-1]["examples"] and seen.max() == 1


@pytest.mark.parametrize("replicas, largest", [(1, None), (2, None), (3, None), (1, 2), (2, 1), (3, 1)])
def test_three_epochs_count_every_example_once_each(make_trainer, noise_pairs, replicas, largest):
    """Two batch boundaries (one inside an epoch) and batches that straddle epochs of 12."""
    trainer = make_trainer(
        Linear(),
        noise_pairs(size=SIZE),
        batch_schedule="0:1, 5:7, 19:5",
        total_examples=34,  # 5 x 1, 2 x 7, 3 x 5
        cpu_replicas=replicas,
        largest_micro_batch=largest,
        precision="float64",
    )
    trainer.run()
    rows = rows_of(trainer)
    assert [row["global_batch"] for row in rows] == [1] * 5 + [7] * 2 + [5] * 3
    np.testing.assert_array_equal(
        trainer.state.task_state["seen"].numpy(), np.bincount(np.arange(34) % 12, minlength=12)
    )
    # The weights of the loss count them too, independently of `gather`.
    start = 0
    for row in rows:
        ids = np.arange(start, start + row["global_batch"]) % 12
        assert row["loss/fit/id"] == pytest.approx(ids.mean(), abs=1e-12)
        start += row["global_batch"]


def test_whole_epochs_across_boundaries(make_trainer, noise_pairs):
    trainer = make_trainer(
        Linear(), noise_pairs(size=SIZE), batch_schedule="0:2, 10:4, 22:7", total_examples=36, cpu_replicas=2
    )
    trainer.run()
    assert [row["global_batch"] for row in rows_of(trainer)] == [2] * 5 + [4] * 3 + [7] * 2
    np.testing.assert_array_equal(trainer.state.task_state["seen"].numpy(), 3)


def test_traces_do_not_grow_with_sizes_or_pieces(make_trainer, noise_pairs):
    trainer = make_trainer(
        Linear(),
        noise_pairs(size=SIZE),
        batch_schedule="0:1, 3:4, 11:7, 25:1, 27:12, 39:4, 43:7",
        total_examples=50,
        cpu_replicas=2,
        largest_micro_batch=1,
    )
    trainer.run()
    assert {row["accumulation"] for row in rows_of(trainer)} == {1, 2, 4, 6}
    assert trainer.loop.traces == 4  # in one piece and in several, once on each replica


def test_learning_rate_warms_up_after_each_growth_and_follows_its_rule(make_trainer, noise_pairs):
    trainer = make_trainer(
        Linear(),
        noise_pairs(size=SIZE),
        batch_schedule="0:2, 4:4, 12:8, 36:2",
        total_examples=40,
        learning_rate_rule="linear",
        warmup_after_growth=16,
    )
    trainer.run()
    # Batch 4 from 4 on goes from 1 to 2 within 16 examples; at 12 it has come to 1.5, from where
    # batch 8 goes to 4; falling back needs no warm-up.
    growth = [1, 1, 1, 1.25, 1.5, 2.75, 4, 1, 1]
    assert [row["learning_rate/fit"] for row in rows_of(trainer)] == pytest.approx(
        [0.01 * g for g in growth], rel=1e-6
    )


def test_a_batch_per_replica_stays_what_it_was_when_the_run_began(make_trainer, noise_pairs, tmp_path):
    data, workdir = noise_pairs(size=SIZE), str(tmp_path / "run")

    def make(schedule, *, replicas, total):
        trainer = make_trainer(
            Linear(),
            data,
            workdir=workdir,
            batch_schedule=schedule,
            cpu_replicas=replicas,
            total_examples=total,
            warmup=12,
        )
        trainer.restore()
        return trainer

    trainer = make("0:1 per replica, 4:2 per replica", replicas=2, total=8)
    trainer.run()
    assert [row["global_batch"] for row in rows_of(trainer)] == [2, 2, 4]
    with pytest.raises(
        ConfigurationError, match='began on 2 replicas; on 1 .* BATCH_SCHEDULE = "0:2, 4:4" and'
    ):
        make("0:1 per replica, 4:2 per replica", replicas=1, total=16).run()
    make("0:1 per replica, 4:2 per replica", replicas=2, total=12).run()
    trainer = make("0:2, 4:4", replicas=1, total=16)
    trainer.run()
    assert [row["global_batch"] for row in rows_of(trainer)] == [2, 2, 4, 4, 4]
    # The warm-up goes on where the restarts were.
    assert [row["learning_rate/fit"] for row in rows_of(trainer)] == pytest.approx(
        [0.01 * drawn / 12 for drawn in (2, 4, 8, 12, 12)], rel=1e-6
    )


def test_moving_average_keeps_its_memory_in_examples(make_trainer, noise_pairs, monkeypatch):
    task, weights = Linear(ema_decay=0.9), []
    trainer = make_trainer(
        task,
        noise_pairs(size=SIZE),
        batch_schedule="0:1, 2:3",
        total_examples=8,
        scale_ema_decay=True,
        precision="float64",
    )
    log = RunActions.log

    def watch(actions):
        weights.append(trainer.state.networks["net"].trainable_variables[0].numpy())
        log(actions)

    monkeypatch.setattr(RunActions, "log", watch)
    trainer.run()
    average = np.ones_like(weights[0])
    for weight, decay in zip(weights, [0.9, 0.9, 0.9**3, 0.9**3], strict=True):
        average = decay * average + (1 - decay) * weight
    averaged = trainer.state.averaged["net"].trainable_variables[0].numpy()
    np.testing.assert_allclose(averaged, average, rtol=0, atol=1e-12)


@pytest.mark.parametrize("replicas, largest, cuts", [(2, None, [4]), (1, 3, [3, 6]), (2, 2, [2, 4, 6])])
def test_noise_scale_is_that_of_the_shares(make_trainer, noise_pairs, replicas, largest, cuts):
    """Two steps of 7 examples, cut into shares by replica and micro-batch, by hand."""
    data = noise_pairs(size=SIZE)
    trainer = make_trainer(
        Linear(),
        data,
        batch_schedule=7,
        total_examples=14,
        cpu_replicas=replicas,
        largest_micro_batch=largest,
        measure_noise_scale=True,
        noise_scale_smoothing=0.75,
        precision="float64",
    )
    trainer.run()
    examples = np.stack([data.example(k % 12)["input"] for k in range(14)]).astype("float64")
    gradients = examples.mean(axis=(1, 2)) / 3  # [examples, 3], whatever the weights
    trace, square, weight = 0.0, 0.0, 0.0
    for step in (gradients[:7], gradients[7:]):
        shares = np.split(step, cuts)
        s = sum(len(share) * np.sum(share.mean(axis=0) ** 2) for share in shares)
        t = np.sum(step.mean(axis=0) ** 2)
        of_one = (s - 7 * t) / (len(shares) - 1)
        trace, square = 0.75 * trace + 0.25 * of_one, 0.75 * square + 0.25 * (t - of_one / 7)
        weight = 0.75 * weight + 0.25
    value = trainer.state.noise_scales["fit"].value()
    assert value.trace_covariance == pytest.approx(trace / weight, rel=1e-9)
    assert value.square_gradient == pytest.approx(square / weight, rel=1e-9)
    if square > 0:
        assert rows_of(trainer)[-1]["noise_scale/fit"] == pytest.approx(trace / square, rel=1e-9)


def test_batch_grows_on_a_plateau(make_trainer, noise_pairs):
    trainer = make_trainer(
        Linear(),
        noise_pairs(size=SIZE),
        batch_schedule=GrowOnPlateau(start=1, maximum=4, patience=1, minimum_change=1000.0),
        total_examples=20,
        evaluate_every=4,
    )
    trainer.run()
    # The first evaluation (at 4) improves, the next two do not: at 12 the batch doubles. From then on
    # 16 and 20, the end, do not either.
    assert [row["global_batch"] for row in rows_of(trainer)] == [1] * 12 + [2] * 4


def test_schedules_that_follow_evaluations_need_some(make_trainer, noise_pairs):
    schedule = GrowOnPlateau(start=1, maximum=4, patience=1)
    with pytest.raises(ConfigurationError, match="EVALUATE_EVERY = 0 makes none"):
        make_trainer(Linear(), noise_pairs(size=SIZE), batch_schedule=schedule, total_examples=4)


@pytest.fixture(scope="module")
def train_small(synthetic_datasets, tmp_path_factory):
    """Trains the quickstart with a tiny network in float64; returns the run and its final weights."""
    directory = tmp_path_factory.mktemp("runs")

    def train(name, *params, **kwargs):
        workdir = str(directory / name)
        small = {
            "DATA_DIR": synthetic_datasets,
            "LOAD_SIZE": 36,
            "CROP_SIZE": 32,
            "pix2pix.Pix2Pix.generator": "unet_32",
            "pix2pix.Pix2Pix.generator_filters": 2,
            "pix2pix.Pix2Pix.discriminator_filters": 2,
            "PRECISION": "float64",
            "NORM": "instance",
            "DROPOUT": False,
            "BATCH_SCHEDULE": "0:2, 8:6",
            "TOTAL_EXAMPLES": 26,
            "EVALUATE_EVERY": 0,
            "SAVE_EVERY": 8,
            "LOG_EVERY": 1,
        }
        params = [f"{key} = {value!r}" for key, value in small.items()] + list(params)
        engine.train.train(gin_files=["gin/quickstart.gin"], gin_params=params, workdir=workdir, **kwargs)
        run = RunDirectory(workdir)
        reader = tf.train.load_checkpoint(f"{run.checkpoints}/00000026/state")
        names = [n for n in reader.get_variable_to_shape_map() if "network" in n]
        return run, {name: reader.get_tensor(name) for name in names}

    return train


@pytest.fixture(scope="module")
def whole(train_small):
    """Final weights of the run in whole batches."""
    return train_small("whole")[1]


def assert_same_weights(actual, expected):
    assert actual.keys() == expected.keys() and len(actual) > 10
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-8, err_msg=name)


def test_out_of_memory_goes_on_with_smaller_pieces_to_the_same_weights(
    train_small, whole, monkeypatch, capsys
):
    run_loop, refused = TrainLoop.run, []

    def with_little_memory(self, iterator, *, layout, **kwargs):
        if layout.micro_batch > 2:
            refused.append((kwargs["examples"], layout.micro_batch))
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return run_loop(self, iterator, layout=layout, **kwargs)

    monkeypatch.setattr(TrainLoop, "run", with_little_memory)
    run, weights = train_small("little")
    assert refused == [(8, 6), (8, 3)]
    assert_same_weights(weights, whole)
    assert json.load(open(run.micro_batch))["largest_micro_batch"] == 1
    rows = read_rows(run.train_log)
    assert [row["examples"] for row in rows] == [2, 4, 6, 8, 14, 20, 26]
    # The first four steps stand as they were done, before memory ran out.
    assert [row["accumulation"] for row in rows] == [1] * 4 + [6] * 3
    assert open(run.console_log).read().count("out of memory at 8 examples") == 2
    assert "out of memory at 8 examples with micro-batches of 6 per replica" in capsys.readouterr().out
    # A prolonged run does not try the large pieces again.
    train_small("little", "TOTAL_EXAMPLES = 26")
    assert len(refused) == 2


def test_automatic_micro_batch_is_measured_once_and_kept(train_small, whole, monkeypatch):
    calls = []

    def measure(text, *, limit, fraction, budget_bytes):
        calls.append((limit, fraction, budget_bytes))
        model = MemoryModel(constant_bytes=100, bytes_per_example=10)
        size = min(limit, model.largest(budget_bytes))
        return Probe(points=((1, 110),), model=model, budget_bytes=budget_bytes, largest_micro_batch=size)

    monkeypatch.setattr("engine.memory.probe.measure", measure)
    automatic = ["LARGEST_MICRO_BATCH = 'auto'", "experiment.Experiment.memory_bytes = 145"]
    run, weights = train_small("auto", *automatic)
    assert calls == [(6, 0.8, 145)]
    assert read_rows(run.train_log)[-1]["accumulation"] == 2  # 4 fit, so 6 are 3 + 3
    assert_same_weights(weights, whole)
    train_small("auto", *automatic)
    assert len(calls) == 1
    # Whoever asks for whole batches gets them.
    train_small("auto", "TOTAL_EXAMPLES = 26")
    # Devices of another kind, or another configuration, are measured anew.
    train_small("auto", *automatic, "CPU_REPLICAS = 2", "STRATEGY = 'mirrored'")
    train_small("auto", *automatic, "SEED = 1", allow_config_change=True)
    assert len(calls) == 3


def test_one_example_that_does_not_fit_is_refused(train_small, monkeypatch):
    def no_memory(self, iterator, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(TrainLoop, "run", no_memory)
    with pytest.raises(ConfigurationError, match="out of memory with one example on each replica; lower"):
        train_small("none")
