"""Adversarial losses and gradient penalties against NumPy and closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from engine.task import Adam, Seeds, Step
from models import losses


def logits(seed, shape=(3, 6, 5, 1)):
    return np.random.default_rng(seed).normal(0, 2, shape)


def mean(x):
    return x.mean(tuple(range(1, x.ndim)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


REAL, FAKE = logits(0), logits(1)
EXPECTED = {  # kind: (the discriminator's terms, the generator's loss)
    "bce": (
        {"fake": mean(-np.log(1 - sigmoid(FAKE))), "real": mean(-np.log(sigmoid(REAL)))},
        mean(-np.log(sigmoid(FAKE))),
    ),
    "lsgan": ({"fake": mean(FAKE**2), "real": mean((REAL - 1) ** 2)}, mean((FAKE - 1) ** 2)),
    "hinge": (
        {"fake": mean(np.maximum(0, 1 + FAKE)), "real": mean(np.maximum(0, 1 - REAL))},
        mean(-FAKE),
    ),
    "wgan_gp": ({"fake": mean(FAKE), "real": mean(-REAL)}, mean(-FAKE)),
    "relativistic": (
        {"pair": mean(-np.log(sigmoid(REAL - FAKE)))},
        mean(-np.log(sigmoid(FAKE - REAL))),
    ),
}


def test_every_kind_has_expected_values():
    assert set(EXPECTED) == set(losses.ADVERSARIAL_LOSSES)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL_LOSSES)
def test_adversarial_losses(kind):
    terms, generator = EXPECTED[kind]
    found = losses.discriminator_terms(REAL, FAKE, kind)
    assert set(found) == set(terms)
    for name, value in terms.items():
        assert found[name].dtype == tf.float64
        np.testing.assert_allclose(found[name], value, rtol=1e-10)
    np.testing.assert_allclose(losses.generator_loss(FAKE, kind, real=REAL), generator, rtol=1e-10)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_adversarial_losses_and_gradients_stay_finite(kind, dtype):
    real, fake = (tf.constant([[-1e4, 0.0], [1e4, 1.0]], dtype) * sign for sign in (1, -1))
    with tf.GradientTape() as tape:
        tape.watch([real, fake])
        values = [*losses.discriminator_terms(real, fake, kind).values()]
        values.append(losses.generator_loss(fake, kind, real=real))
    for value in (*values, *tape.gradient(values, [real, fake])):
        assert np.all(np.isfinite(tf.cast(value, tf.float32)))
    assert all(value.dtype == tf.float32 and value.shape == (2,) for value in values)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL_LOSSES)
def test_adversarial_losses_pull_the_right_way(kind):
    real, fake = tf.constant([[0.3]]), tf.constant([[0.2]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([real, fake])
        terms_sum = tf.add_n(list(losses.discriminator_terms(real, fake, kind).values()))
        made = losses.generator_loss(fake, kind, real=real)
    assert tape.gradient(terms_sum, real) < 0 < tape.gradient(terms_sum, fake)
    assert tape.gradient(made, fake) < 0


def test_only_the_real_label_is_smoothed():
    soft, p = 0.9, sigmoid(REAL)
    found = losses.discriminator_terms(REAL, FAKE, "bce", smoothing=0.1)
    np.testing.assert_allclose(found["real"], mean(-soft * np.log(p) - 0.1 * np.log(1 - p)), rtol=1e-10)
    np.testing.assert_allclose(found["fake"], EXPECTED["bce"][0]["fake"], rtol=1e-10)
    found = losses.discriminator_terms(REAL, FAKE, "lsgan", smoothing=0.1)
    np.testing.assert_allclose(found["real"], mean((REAL - soft) ** 2), rtol=1e-10)
    np.testing.assert_allclose(losses.gan_loss(FAKE, False, smoothing=0.1), mean(np.logaddexp(0, FAKE)))
    with pytest.raises(ValueError, match="'hinge': has no labels to smooth"):
        losses.discriminator_terms(REAL, FAKE, "hinge", smoothing=0.1)


def test_unknown_kinds_and_missing_logits_raise_errors():
    for call in (losses.generator_loss, lambda x, kind: losses.discriminator_terms(x, x, kind)):
        with pytest.raises(ValueError, match="'hinge2': unknown; use one of bce, lsgan, hinge, wgan_gp, re"):
            call(REAL, "hinge2")
    with pytest.raises(ValueError, match="pass their logits"):
        losses.generator_loss(FAKE, "relativistic")


def quadratic(weights):
    """Logits [B, 2, 1] whose mean is sum(weights x^2) / 2: its gradient is weights * x."""
    return lambda x: 0.5 * tf.stack([tf.reduce_sum(weights * x**2, [1, 2, 3])] * 2, 1)[..., None]


def test_gradient_penalty_and_r1_of_a_quadratic():
    weights, real, fake = (logits(seed, (3, 4, 5, 2)) for seed in (2, 3, 4))
    weights, share = weights[:1], np.array([0.0, 0.25, 0.7]).reshape(3, 1, 1, 1)
    norms = np.sqrt(np.sum((weights * (share * real + (1 - share) * fake)) ** 2, (1, 2, 3)))
    penalty = losses.gradient_penalty(quadratic(weights), tf.constant(real), tf.constant(fake), share)
    assert penalty.dtype == tf.float64
    np.testing.assert_allclose(penalty, (norms - 1) ** 2, rtol=1e-10)
    r1 = losses.r1(quadratic(weights), tf.constant(real))
    np.testing.assert_allclose(r1, 0.5 * np.sum((weights * real) ** 2, (1, 2, 3)), rtol=1e-10)


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_penalties_can_be_differentiated(scale):
    x = tf.constant(logits(5, (2, 3, 3, 1)))
    weight = tf.Variable(scale, dtype=tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        r1 = losses.r1(quadratic(weight), x)
        penalty = losses.gradient_penalty(quadratic(weight), x, x, tf.zeros([2, 1, 1, 1]))
    squares = np.sum(x.numpy() ** 2, (1, 2, 3))
    np.testing.assert_allclose(tape.gradient(r1, weight), scale * squares.sum(), rtol=1e-10)
    # At a gradient of zero the norm has no derivative; the result must still be finite.
    expected = 2 * (scale * squares - np.sqrt(squares)).sum() if scale else 0.0
    np.testing.assert_allclose(tape.gradient(penalty, weight), expected, rtol=1e-10)


def test_r1_follows_the_batch_and_the_size():
    # StyleGAN3's table of settings: 256x256 at batch 16, 32, 64, and 128x128 at batch 32.
    for side, batch, gamma in ((256, 16, 0.8192), (256, 32, 0.4096), (256, 64, 0.2048), (128, 32, 0.1024)):
        found = losses.r1_gamma(height=side, width=side, global_batch=tf.constant(batch))
        np.testing.assert_allclose(found, gamma, rtol=1e-6)


def test_r1_of_the_sum_of_patches_is_as_many_squared_times_that_of_their_mean():
    kernel = np.random.default_rng(0).normal(size=(4, 4, 3, 1))
    images = tf.constant(np.random.default_rng(1).normal(size=(2, 12, 16, 3)))

    def patches(x):  # [B, 6, 8, 1]
        return tf.tanh(tf.nn.conv2d(x, kernel, 2, "SAME"))

    summed = losses.r1(lambda x: tf.reduce_sum(patches(x), axis=(1, 2, 3)), images)
    np.testing.assert_allclose(summed, (6 * 8) ** 2 * losses.r1(patches, images), rtol=1e-10)


def test_lazy_adam_moves_as_far_in_k_plus_one_updates():
    settings = losses.lazy_adam(Adam(learning_rate=2e-3, beta1=0.5, beta2=0.99, epsilon=1e-7), 16)
    np.testing.assert_allclose(17 * settings.learning_rate, 16 * 2e-3)
    np.testing.assert_allclose([settings.beta1**17, settings.beta2**17], [0.5**16, 0.99**16])
    assert settings.epsilon == 1e-7


def alone(examples):
    """A step of one replica."""
    seeds = Seeds(key=tf.constant([1, 2]), global_batch=tf.constant(examples), own=lambda x: x)
    nothing = {"networks": {}, "batch": {}, "outputs": {}, "state": {}}
    return Step(step=0, examples=0, seeds=seeds, gather=lambda x: x, own=lambda x: x, **nothing)


@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 5), (0.5, 3), (0.2, 1), (0.01, 1)])
def test_top_k_is_the_mean_of_the_best(fraction, kept):
    values, scores = np.array([1.0, 2, 3, 4, 5]), np.array([0.1, 0.9, 0.5, 0.9, -3])
    best = np.argsort(-scores, kind="stable")[:kept]
    found = losses.top_k(tf.constant(values), tf.constant(scores), alone(5), fraction=fraction)
    np.testing.assert_allclose(np.mean(found), values[best].mean(), rtol=1e-12)
    assert set(np.flatnonzero(found)) == set(best)


def test_top_k_of_a_tenth_is_a_tenth():
    scores = tf.constant(np.arange(10), tf.float32)
    assert np.count_nonzero(losses.top_k(tf.ones(10), scores, alone(10), fraction=0.1)) == 1
