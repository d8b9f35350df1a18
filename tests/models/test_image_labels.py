"""Classification and regression: replicas, learning, scales of numbers, groups, evaluation, refusals."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.optimizers import Adam, Sgd
from engine.parameter_groups import ParameterGroup
from engine.schedules import ReduceOnPlateau
from engine.storage.run_directory import read_rows
from models.classification import Classification
from models.label_network import LabelNetwork
from models.networks import keras_application
from models.networks.efficientnet_v2_xl import STAGES, efficientnet_v2_xl
from models.regression import Regression
from tests.helpers.labelled_data import MadeUpLabels
from tests.helpers.runs import variables

SMALL = LabelNetwork(filters=4, stages=2, dropout=0.0)
NUMBERS = MadeUpLabels(kind="numbers")


def trained(make_trainer, task, data, **settings):
    trainer = make_trainer(task, data, sample_every=0, save_every=0, **settings)
    trainer.run()
    return trainer


def losses(trainer):
    rows = read_rows(trainer.run_directory.train_log)
    return np.array([[value for name, value in row.items() if name.startswith("loss/")] for row in rows])


def assert_same_training(first, second):
    np.testing.assert_allclose(losses(first), losses(second), rtol=0, atol=1e-8)
    left, right = variables(first), variables(second)
    assert left.keys() == right.keys() and len(left) > 10
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=1e-8, err_msg=name)
    metrics = [read_rows(each.run_directory.eval_log)[-1] for each in (first, second)]
    for name in (name for name in metrics[0] if name.startswith("metric/")):
        np.testing.assert_allclose(metrics[0][name], metrics[1][name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("kind", "replicas"), [("numbers", 3), ("classes", 2)])
def test_replicas_equal_one_on_batches_that_do_not_divide(make_trainer, kind, replicas):
    network = LabelNetwork(filters=2, stages=2, dropout=0.0, side_vector=True, hidden_units=(3,))
    task = {
        "numbers": lambda: Regression(network=network, loss="huber", ema_decay=0.9),
        "classes": lambda: Classification(network=network, label_smoothing=0.1),
    }[kind]
    data = MadeUpLabels(kind=kind, has_vector=True, channels=1, size=8)
    # 7 on 2 and 3 replicas is (4, 3) and (3, 3, 1); 1 leaves replicas without an example.
    settings = {"batch_schedule": "0:7, 21:1", "total_examples": 23, "precision": "float64"}
    one, other = (
        trained(make_trainer, task(), data, cpu_replicas=count, **settings) for count in (1, replicas)
    )
    assert len(losses(one)) == 5 and np.ptp(losses(one)[:3]) > 1e-3
    assert_same_training(one, other)


def test_an_application_trains_alike_on_replicas(make_trainer, monkeypatch):
    """Blocks of EfficientNetV2, with synchronised batch norm and squeeze-and-excitation."""
    stages = [
        STAGES[0]._replace(repeats=1),
        STAGES[3]._replace(repeats=1, inputs=32, outputs=32, expansion=2),
    ]
    builder = functools.partial(efficientnet_v2_xl, stages=stages, drop_connect_rate=0.0)
    monkeypatch.setattr(keras_application, "efficientnet_v2_xl", builder)
    task = functools.partial(Classification, network=LabelNetwork(backbone="EfficientNetV2XL", dropout=0.0))
    data = MadeUpLabels(size=32, evaluation_examples=3)
    settings = {"batch_schedule": 3, "total_examples": 6, "precision": "float64"}
    one, three = (
        trained(make_trainer, task(), data, cpu_replicas=replicas, **settings) for replicas in (1, 3)
    )
    assert_same_training(one, three)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Both tasks, trained on two replicas until they know what there is to know; trainers by kind."""
    from engine.experiment import Experiment
    from engine.outer_loop.trainer import Trainer
    from engine.storage.run_directory import RunDirectory

    network, adam = LabelNetwork(filters=4, stages=2, dropout=0.1), Adam(learning_rate=0.02, beta1=0.9)
    tasks = {
        "classes": Classification(network=network, optimizer=adam),
        "numbers": Regression(network=network, optimizer=adam),
    }
    trainers = {}
    for kind, task in tasks.items():
        run = RunDirectory(str(tmp_path_factory.mktemp(kind)))
        run.create()
        experiment = Experiment(
            task=task,
            data=MadeUpLabels(kind=kind, train_examples=60, evaluation_examples=40),
            total_examples=3000,
            batch_schedule=12,
            evaluate_every=600,
            cpu_replicas=2,
            strategy="mirrored",
            sample_every=0,
            save_every=0,
        )
        trainers[kind] = Trainer(experiment, run)
        trainers[kind].run()
    return trainers


def test_a_classifier_learns(learned):
    rows = read_rows(learned["classes"].run_directory.eval_log)
    assert rows[-1]["metric/accuracy"] > 0.9 and rows[-1]["metric/cross_entropy"] < 0.3
    said = learned["classes"].run_directory.console_log
    with open(said) as file:
        text = file.read()
    assert "evaluated 40 images of val: accuracy " in text and "accuracy is " in text  # the best checkpoint


def test_a_regression_learns_numbers_far_from_0_in_their_own_units(learned):
    trainer = learned["numbers"]
    found = read_rows(trainer.run_directory.eval_log)[-1]
    assert found["metric/r2"] > 0.9 and found["metric/rmse"] < 0.3 * 23  # 40 / sqrt(3) = 23 says nothing
    mean, stddev = trainer.experiment.data.target_statistics
    scale = trainer.state.networks["regressor"].get_layer("target_scale")
    np.testing.assert_allclose(scale.get_weights(), [mean, stddev], rtol=1e-6)


def test_metrics_are_those_of_the_predictions(learned):
    for kind, trainer in learned.items():
        network, data = (
            trainer.state.evaluation_networks[trainer.experiment.task.name],
            trainer.experiment.data,
        )
        examples = [data.example(2000 + k) for k in range(40)]
        outputs = network(np.stack([each["input"] for each in examples]), training=False).numpy()
        targets = np.stack([each["target"] for each in examples])
        evaluation = trainer.evaluator.evaluate("test", baselines=("mean target",))
        found = evaluation.metrics
        assert tuple(found) == trainer.evaluator.metric_names
        assert evaluation.names == tuple(str(2000 + k) for k in range(40))
        if kind == "numbers":
            error = (outputs - targets)[:, 0].astype(np.float64)
            variance = np.var(targets[:, 0], dtype=np.float64)
            expected = {
                "mse": np.mean(error**2),
                "mae": np.mean(abs(error)),
                "rmse": np.sqrt(np.mean(error**2)),
                "r2": 1 - np.mean(error**2) / variance,
            }
        else:
            right = np.argmax(outputs, axis=1) == np.argmax(targets, axis=1)
            entropy = keras.losses.CategoricalCrossentropy(from_logits=True)(targets, outputs)
            expected = {"accuracy": right.mean(), "cross_entropy": float(entropy)}
        assert found == pytest.approx(expected, rel=2e-4)
        (baseline,) = evaluation.baselines.values()
        train = np.stack([data.example(k)["target"] for k in range(60)]).astype(np.float64)
        if kind == "numbers":
            assert baseline["mse"] == pytest.approx(np.mean((targets - train.mean()) ** 2), rel=1e-6)
        else:
            most = np.argmax(train.sum(axis=0))
            assert baseline["accuracy"] == pytest.approx(targets[:, most].mean())


def test_losses_do_not_depend_on_the_units_of_the_numbers(make_trainer):
    found = []
    for factor in (1.0, 1000.0):
        data = MadeUpLabels(kind="numbers")
        object.__setattr__(data, "target_scale", 40.0 * factor)
        object.__setattr__(data, "target_offset", 1000.0 * factor)
        task = Regression(network=SMALL, loss="mae", optimizer=Sgd(learning_rate=0.1))
        trainer = trained(make_trainer, task, data, batch_schedule=6, total_examples=18, precision="float64")
        found.append(losses(trainer))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


GROUPS = (
    ParameterGroup(pattern="classifier/stage1_*", frozen=True),
    ParameterGroup(pattern="classifier/stage2_*", learning_rate=0.02),
    ParameterGroup(pattern="classifier/head/bias", learning_rate=0.05),
)


def test_three_groups_on_two_replicas(make_trainer):
    """The first step of SGD is proportional to the rate."""
    sgd = Sgd(learning_rate=0.01, momentum=0.0)
    settings = {"batch_schedule": 5, "precision": "float64", "cpu_replicas": 2}
    found, before = [], None
    for groups in ((GROUPS[0],), GROUPS):
        trainer = make_trainer(
            Classification(network=SMALL, optimizer=sgd),
            MadeUpLabels(),
            total_examples=5,
            parameter_groups=groups,
            sample_every=0,
            save_every=0,
            **settings,
        )
        before = variables(trainer)
        trainer.run()
        found.append(variables(trainer))
    plain, grouped = found
    moved = 0
    for name in (name for name in before if name.startswith("network/") and "moving" not in name):
        change, usual = grouped[name] - before[name], plain[name] - before[name]
        index = int(name.split("/")[2][:3])
        weight = trainer.state.networks["classifier"].weights[index].path
        ratio = 0 if "stage1" in weight else 2 if "stage2" in weight else 5 if weight == "head/bias" else 1
        if not ratio:
            np.testing.assert_array_equal(grouped[name], before[name])
            continue
        assert np.abs(usual).max() > 0
        moved += 1
        np.testing.assert_allclose(change, ratio * usual, rtol=1e-9, atol=1e-15)
    assert moved == 5  # kernel, gamma and beta of the second stage; kernel and bias of the head


def test_plateau_schedule_and_best_checkpoint_follow_the_metrics_of_labels(make_trainer):
    schedule = ReduceOnPlateau(metric="accuracy", patience=0, factor=0.5, minimum_change=1.0)
    task = Classification(network=SMALL, optimizer=Adam(learning_rate=1e-3, schedule=schedule))
    trainer = trained(
        make_trainer, task, MadeUpLabels(), batch_schedule=6, total_examples=24, evaluate_every=6
    )
    rows = read_rows(trainer.run_directory.train_log)
    rates = [row["learning_rate/classifier"] for row in rows]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])  # the first evaluation always is the best
    best = max(row["metric/accuracy"] for row in read_rows(trainer.run_directory.eval_log))
    assert trainer.state.best.numpy() == best


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: LabelNetwork(backbone="VGG61"), "LabelNetwork.backbone = 'VGG61': not an image classifier"),
        (lambda: LabelNetwork(weights="imagenet"), "there are none of the backbone 'small'"),
        (
            lambda: LabelNetwork(input_channels="sum"),
            "input_channels = 'sum': unknown; use one of mean, repeat",
        ),
        (lambda: LabelNetwork(dropout=1.0), r"dropout = 1.0: must lie in \[0, 1\)"),
        (lambda: Classification(label_smoothing=1.0), r"label_smoothing = 1.0: must lie in \[0, 1\)"),
        (lambda: Regression(loss="l3"), "Regression.loss = 'l3': unknown; use one of mse, mae, huber"),
        (lambda: Regression(huber_delta=0.0), "huber_delta = 0: must be above 0"),
        (lambda: Regression(ema_decay=1.0), r"ema_decay = 1.0: must lie in \(0, 1\)"),
        (
            lambda: SMALL.build({"input": tf.TensorSpec([3, 9, 3])}, outputs=1, name="x"),
            "needs 4x4; raise it",
        ),
        (
            lambda: LabelNetwork(side_vector=True).build(NUMBERS.example_spec, outputs=1, name="x"),
            "the data set has no 'side_vector'",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, expected):
    with pytest.raises(ConfigurationError, match=expected):
        make()


def test_a_task_refuses_targets_of_another_kind(make_trainer, noise_pairs):
    numbers, classes = MadeUpLabels(kind="numbers"), MadeUpLabels()
    for task, data, expected in (
        (
            Classification(network=SMALL),
            numbers,
            "learns classes, but the targets of this data set are numbers",
        ),
        (Regression(network=SMALL), classes, "learns numbers, but the targets of this data set are classes"),
        (Regression(network=SMALL), noise_pairs(), "are images; give it another"),
    ):
        with pytest.raises(ConfigurationError, match=expected):
            make_trainer(task, data, total_examples=1)
    with pytest.raises(ConfigurationError, match="metric 'mask_iou': is of images"):
        make_trainer(Regression(network=SMALL), numbers, total_examples=1, metrics=("mask_iou",))
    with pytest.raises(ConfigurationError, match="best_metric = 'psnr_db': evaluations of this task do not"):
        make_trainer(Regression(network=SMALL), numbers, total_examples=1, best_metric="psnr_db")
