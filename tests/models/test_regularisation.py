"""pix2pix with every adversarial loss and regularisation: micro-batches, replicas, penalties."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.storage.run_directory import read_rows
from engine.task import Adam, Seeds
from models import losses
from models.networks.diff_augment import diff_augment
from models.networks.layers import Conv, image_input
from models.networks.patchgan import patchgan
from models.networks.spectral_norm import SpectralNorm
from models.pix2pix import Pix2Pix
from models.regularisation import Regularisation
from tests.helpers.micro_batches import assert_same, plans_of, train

SIZE = 16
CASES = {
    "lsgan": Regularisation(label_smoothing=0.1),
    "hinge": Regularisation(spectral_norm=True),
    "wgan_gp": Regularisation(diff_augment=("colour", "translation", "cutout")),
    "relativistic": Regularisation(r1=0.01, r1_every=1),
    "bce": Regularisation(label_smoothing=0.1, r1=0.01, r1_every=1, spectral_norm=True),
}


@pytest.fixture
def make_task(small_pix2pix):
    class Task(small_pix2pix):
        """With a discriminator that can have spectral norm."""

        def networks(self, example):
            networks = super().networks(example)
            if self.regularisation.spectral_norm:
                x = image = image_input(6)
                x = SpectralNorm(Conv(4, 4, stride=2, padding=1, name="conv"))(x)
                x = keras.layers.LeakyReLU(0.2)(x)
                x = SpectralNorm(Conv(1, 3, stride=2, padding=1, name="out"))(x)
                networks["discriminator"] = keras.Model(image, x, name="discriminator")
            return networks

    def make(gan_loss, regularisation, *, learning_rate=1e-3):
        adam = Adam(learning_rate=learning_rate)
        return Task(
            norm="instance",
            dropout=False,
            gan_loss=gan_loss,
            regularisation=regularisation,
            generator_optimizer=adam,
            discriminator_optimizer=adam,
        )

    return make


def test_every_adversarial_loss_is_tried():
    assert set(CASES) == set(losses.ADVERSARIAL_LOSSES)


QUICK = ("wgan_gp", "relativistic")  # the losses that could mix examples
MARKED = [pytest.param(case, marks=() if case in QUICK else pytest.mark.soak) for case in CASES]


@pytest.mark.parametrize("gan_loss", MARKED)
def test_micro_batches_and_replicas_give_the_step_of_one(make_trainer, noise_pairs, make_task, gan_loss):
    task, data = make_task(gan_loss, CASES[gan_loss]), noise_pairs(size=SIZE)
    settings = {"total_examples": 1, "precision": "float64"}
    one = make_trainer(task, data, **settings)
    whole = train(one, plans_of(5, None, 1, steps=4))
    assert np.all(np.isfinite(whole[0])) and np.all(np.ptp(whole[0], axis=0) > 1e-6)
    assert_same(train(one, plans_of(5, 2, 1, steps=4)), whole)
    two = make_trainer(task, data, cpu_replicas=2, **settings)
    assert_same(train(two, plans_of(5, 1, 2, steps=4)), whole)


def test_spectral_vectors_move_once_for_each_pass_in_any_number_of_micro_batches(
    make_trainer, noise_pairs, make_task
):
    """A step has three passes: fake and real for the discriminator, fake for the generator."""
    task = make_task("hinge", Regularisation(spectral_norm=True), learning_rate=0.0)
    trainer = make_trainer(task, noise_pairs(size=SIZE), total_examples=1, precision="float64")
    for largest in (None, 3, 1):
        _, values = train(trainer, plans_of(6, largest, 1, steps=2))
        names = sorted(name for name in values if name.endswith("_u"))
        kernels = [weight.numpy() for weight in trainer.state.networks["discriminator"].weights]
        kernels = [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels if kernel.ndim == 4]
        assert len(names) == len(kernels) == 2
        for name, kernel in zip(names, kernels, strict=True):
            u = trainer.initial[name]
            for _ in range(2 * 3):
                v = kernel @ u
                u = kernel.T @ (v / np.linalg.norm(v))
                u /= np.linalg.norm(u)
            np.testing.assert_allclose(values[name], u, rtol=0, atol=1e-10)


@pytest.fixture
def make_linear(make_task):
    """A task whose discriminator is linear, so that its gradient is the same everywhere."""

    def make(gan_loss, regularisation):
        task = make_task(gan_loss, regularisation, learning_rate=0.0)
        networks = task.networks

        def with_linear(example):
            image = image_input(6)
            logits = Conv(1, 4, stride=2, padding=1, name="logits")(image)
            return networks(example) | {"discriminator": keras.Model(image, logits, name="discriminator")}

        task.networks = with_linear
        return task

    return make


def gradient_of_mean_logit(network):
    """With respect to the second image of a pair, from the outputs for all basis images."""
    basis = np.eye(SIZE * SIZE * 3).reshape(-1, SIZE, SIZE, 3)
    values = network(np.concatenate([np.zeros_like(basis), basis], axis=-1))
    return np.mean(values, axis=(1, 2, 3)) - np.mean(network(np.zeros((1, SIZE, SIZE, 6))))


def test_wgan_has_its_penalty(make_trainer, noise_pairs, make_linear):
    task = make_linear("wgan_gp", Regularisation(gradient_penalty=7.0))
    trainer = make_trainer(
        task, noise_pairs(size=SIZE), batch_schedule=3, total_examples=6, precision="float64"
    )
    trainer.run()
    norm = np.linalg.norm(gradient_of_mean_logit(trainer.state.networks["discriminator"]))
    rows = read_rows(trainer.run_directory.train_log)
    assert len(rows) == 2
    for row in rows:
        np.testing.assert_allclose(row["loss/discriminator/penalty"], 0.5 * 7 * (norm - 1) ** 2, rtol=1e-8)


def test_r1_is_a_lazy_phase_whose_weight_follows_the_batch(make_trainer, noise_pairs, make_linear):
    task = make_linear("bce", Regularisation(r1=0.3, r1_every=3))
    trainer = make_trainer(
        task,
        noise_pairs(size=SIZE),
        batch_schedule="0:2, 6:4",
        total_examples=18,
        precision="float64",
    )
    trainer.run()
    rows = read_rows(trainer.run_directory.train_log)
    found = [row.get("loss/r1/penalty") for row in rows]
    square = np.sum(gradient_of_mean_logit(trainer.state.networks["discriminator"]) ** 2)
    # 0.5 as all terms of the discriminator have, 0.5 by definition, and 3 because it is due every third step.
    expected = [0.5 * 3 * 0.3 * SIZE * SIZE / batch * 0.5 * square for batch in (2, 4)]
    assert [row["global_batch"] for row in rows] == [2, 2, 2, 4, 4, 4]
    assert [value is None for value in found] == [True, True, False] * 2
    np.testing.assert_allclose([found[2], found[5]], expected, rtol=1e-8)
    settings = task.optimizers["discriminator"]
    np.testing.assert_allclose(settings.beta2**4, 0.999**3)


def test_the_patch_discriminator_is_normalised_throughout():
    network = patchgan(name="discriminator", input_channels=3, filters=2, norm="instance", spectral_norm=True)
    convolutions = [layer for layer in network.layers if layer.name.startswith(("conv", "logits"))]
    assert len(convolutions) == 5 and all(isinstance(layer, SpectralNorm) for layer in convolutions)
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    before = network(x)
    for layer in convolutions:  # the same network with kernels ten times as large, as every bias is 0
        layer.layer.kernel.assign(10 * layer.layer.kernel)
    np.testing.assert_allclose(network(x), before, rtol=0, atol=1e-5)


def test_pairs_are_augmented_alike():
    regularisation = Regularisation(diff_augment=("translation", "cutout"))
    seeds = Seeds(key=tf.constant([1, 2]), global_batch=tf.constant(2), own=lambda x: x)
    x = tf.random.stateless_normal([2, 16, 16, 3], [0, 0])
    real, fake = (regularisation.augment(x, seeds, role) for role in ("real", "fake"))
    np.testing.assert_array_equal(regularisation.augment(2 * x, seeds, "real"), 2 * real)
    assert np.any(real != fake)


@pytest.mark.parametrize(
    ("gan_loss", "norm", "settings", "message"),
    [
        ("wgan", "instance", {}, "gan_loss = 'wgan': unknown; use one of bce, lsgan, hinge, wgan_gp, relat"),
        ("wgan_gp", "batch", {}, "wgan_gp penalises the gradient of each; set norm"),
        ("bce", "batch", {"r1": 0.1}, "r1 penalises the gradient of each; set norm"),
        ("hinge", "batch", {"label_smoothing": 0.1}, "'hinge': has no labels to smooth; set"),
        ("bce", "batch", {"label_smoothing": 1.0}, r"must lie in \[0, 1\)"),
        ("bce", "batch", {"r1_every": 0}, "r1_every = 0 at least 1"),
        ("bce", "batch", {"gradient_penalty": 0.0}, "gradient_penalty = 0.0 must be above 0"),
        ("bce", "batch", {"diff_augment": ("blur",)}, "choose among colour, translation, cutout"),
    ],
)
def test_settings_that_cannot_work_are_refused(gan_loss, norm, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Pix2Pix(gan_loss=gan_loss, norm=norm, regularisation=Regularisation(**settings))


def test_labels_keep_their_colours():
    regularisation = Regularisation(diff_augment=("colour", "translation"))
    drawn = Seeds(key=tf.constant([1, 2]), global_batch=tf.constant(3), own=lambda x: x)
    images = tf.constant(np.random.default_rng(0).choice([-1.0, 0.25, 1.0], (3, 16, 16, 3)))
    found = regularisation.augment(images, drawn, "real", are_labels=True)
    assert set(np.unique(found)) <= {-1.0, 0.0, 0.25, 1.0}  # 0 beyond the border
    np.testing.assert_array_equal(found, diff_augment(images, drawn, policy=("translation",), name="real"))
    assert len(np.unique(regularisation.augment(images, drawn, "real"))) > 20
