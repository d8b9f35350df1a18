"""The moving average of a GAN's generator: against NumPy, in evaluations and samples, through a restart."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import RunInterruptedError
from engine.outer_loop.run_actions import RunActions
from engine.storage.run_directory import read_rows
from engine.task import Adam
from tests.helpers.runs import stop_at, variables

DECAY = 0.8
SETTINGS = {
    "batch_schedule": 2,
    "total_examples": 12,
    "save_every": 4,
    "evaluate_every": 6,
    "sample_every": 100,
    "precision": "float64",
}


@pytest.fixture
def averaged_pix2pix(small_pix2pix):
    class AveragedPix2Pix(small_pix2pix):
        """With batch norm, whose moving statistics the average takes over as they are."""

        def phases(self):
            discriminator, generator = super().phases()
            return discriminator, dataclasses.replace(generator, ema_decay=DECAY)

    return AveragedPix2Pix(
        norm="batch", inference_norm="moving_statistics", generator_optimizer=Adam(learning_rate=1e-2)
    )


def psnr_db(network, data):
    """By hand, the mean over the evaluation split."""
    values = []
    for batch in data.evaluation("val", batch=1):
        made = network(tf.cast(batch["input"], tf.float64), training=False).numpy()
        made, target = (np.floor((x + 1) * 127.5 + 0.5) for x in (made, batch["target"].numpy()))
        values.append(10 * np.log10(255**2 / np.mean((made - target) ** 2)))
    return np.mean(values)


def test_average_is_numpy_s_is_what_is_evaluated_and_goes_through_a_restart(
    make_trainer, noise_pairs, averaged_pix2pix, tmp_path, monkeypatch
):
    data, workdir = noise_pairs(size=32), str(tmp_path / "stopped")
    whole = make_trainer(averaged_pix2pix, data, **SETTINGS)
    raw, average = whole.state.networks["generator"], whole.state.averaged["generator"]
    expected = raw.get_weights()
    log, courses = RunActions.log, []

    def watch(actions):
        courses.append(raw.get_weights())
        log(actions)

    with monkeypatch.context() as patch:
        patch.setattr(RunActions, "log", watch)
        whole.run()
    assert len(courses) == 6 and list(whole.state.averaged) == ["generator"]
    trained = [weight.trainable for weight in raw.weights]
    assert trained.count(False) == 2  # a mean and a variance
    for weights in courses:
        expected = [
            DECAY * old + (1 - DECAY) * new if moves_slowly else new
            for old, new, moves_slowly in zip(expected, weights, trained, strict=True)
        ]
    for ours, value, own in zip(average.weights, expected, raw.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), value, rtol=0, atol=1e-12, err_msg=ours.path)
        assert np.any(ours.numpy() != own.numpy()) == own.trainable, ours.path

    row = read_rows(whole.run_directory.eval_log)[-1]
    assert row["metric/psnr_db"] == pytest.approx(psnr_db(average, data), abs=1e-4)
    assert abs(row["metric/psnr_db"] - psnr_db(raw, data)) > 1e-2
    assert whole.state.evaluation_networks["generator"] is average

    stopped = make_trainer(averaged_pix2pix, data, workdir=workdir, **SETTINGS)
    stop_at(stopped, 6)
    with pytest.raises(RunInterruptedError, match="saved at 6 of"):
        stopped.run()
    last = make_trainer(averaged_pix2pix, data, workdir=workdir, **SETTINGS)
    assert last.restore() == 6
    kept = {name: value for name, value in variables(last).items() if name.startswith("averaged/generator/")}
    assert len(kept) == len(average.weights)
    for name, value in kept.items():
        np.testing.assert_array_equal(value, variables(stopped)[name], err_msg=name)
    last.run()
    for name, value in variables(whole).items():
        np.testing.assert_array_equal(variables(last)[name], value, err_msg=name)
