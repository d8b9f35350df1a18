"""The networks, losses and gradients are the reference's (PyTorch, float32), to 1e-3 and better.

tests/goldens/ holds results of the reference with small networks and random weights: images,
logits, losses and the gradients of its first step; and the weights it started from.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from models import losses
from tests.helpers.goldens import (
    PATCHGAN,
    PIX2PIX_RUNS,
    RESNET,
    UNET,
    assert_close,
    assert_gradients,
    discriminator,
    generator,
    golden,
)


@pytest.mark.parametrize("run", PIX2PIX_RUNS)
def test_pix2pix_images_and_logits(run):
    data = golden(run)
    a, b = data["A"][0], data["B"][0]
    evaluating = generator(run, inference_norm="moving_statistics")
    assert_close(evaluating(a, training=False), data["fake_B_eval_mode"])
    fake = generator(run)(a, training=True)
    assert_close(fake, data["fake_B_train_mode"])
    d = discriminator(run)
    assert_close(d(tf.concat([a, fake], -1), training=True), data["D_logits_fake"])
    assert_close(d(tf.concat([a, b], -1), training=True), data["D_logits_real"])


def test_cyclegan_images_and_logits():
    run = "cyclegan_resnet6_instance"
    data = golden(run)
    a, b = data["A"][0], data["B"][0]
    fake_b = generator(run, net="G_A")(a, training=True)
    fake_a = generator(run, net="G_B")(b, training=True)
    assert_close(fake_b, data["fake_B"])
    assert_close(fake_a, data["fake_A"])
    logits = discriminator(run, net="D_A")(b, training=True)
    assert_close(logits, data["D_A_logits_real_B"])


@pytest.mark.parametrize(
    ("golden_name", "run", "net"),
    [
        ("translate_unet128", "pix2pix_unet128_batch", "G"),
        ("translate_resnet6", "cyclegan_resnet6_instance", "G_A"),
    ],
)
def test_translation_with_either_kind_of_statistics(golden_name, run, net):
    data = golden(golden_name)
    x = (data["input"][np.newaxis] / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    for inference_norm in ("batch_statistics", "moving_statistics"):
        model = generator(run, net=net, inference_norm=inference_norm)
        assert_close(model(x, training=False)[0], data[inference_norm])


def adam_first_step(weight, gradient, lr=2e-4, epsilon=1e-8):
    """PyTorch's Adam at t = 1: both bias corrections cancel, epsilon stands beside |gradient|."""
    return weight - lr * gradient / (np.abs(gradient) + epsilon)


@pytest.mark.parametrize("run", PIX2PIX_RUNS)
def test_pix2pix_losses_and_gradients_of_the_first_step(run):
    data = golden(run)
    a, b = data["A"][0], data["B"][0]
    g, d = generator(run), discriminator(run)
    kind = "lsgan" if run.endswith("lsgan") else "bce"

    with tf.GradientTape() as g_tape:
        fake = g(a, training=True)
        with g_tape.stop_recording(), tf.GradientTape() as d_tape:
            logits = d(tf.concat([a, fake], -1), training=True)
            d_fake = tf.reduce_mean(losses.gan_loss(logits, real=False, kind=kind))
            logits = d(tf.concat([a, b], -1), training=True)
            d_real = tf.reduce_mean(losses.gan_loss(logits, real=True, kind=kind))
            d_loss = (d_fake + d_real) / 2
        with g_tape.stop_recording():
            d_gradients = d_tape.gradient(d_loss, d.trainable_variables)
            for variable, gradient in zip(d.trainable_variables, d_gradients, strict=True):
                variable.assign(adam_first_step(variable.numpy(), gradient.numpy()))
        logits = d(tf.concat([a, fake], -1), training=True)
        g_gan = tf.reduce_mean(losses.gan_loss(logits, real=True, kind=kind))
        g_l1 = 100 * tf.reduce_mean(losses.l1(fake, b))
        g_loss = g_gan + g_l1
    g_gradients = g_tape.gradient(g_loss, g.trainable_variables)

    ours = {"D_fake": d_fake, "D_real": d_real, "G_GAN": g_gan, "G_L1": g_l1}
    for name, value in ours.items():
        np.testing.assert_allclose(value, data[f"loss/{name}"][0], rtol=1e-5, err_msg=name)
    assert_gradients(data, "D", PATCHGAN, d, d_gradients)
    assert_gradients(data, "G", UNET, g, g_gradients)


def test_cyclegan_losses_and_gradients_of_the_first_step():
    run = "cyclegan_resnet6_instance"
    data = golden(run)
    a, b = data["A"][0], data["B"][0]
    g_a, g_b = generator(run, net="G_A"), generator(run, net="G_B")
    d_a, d_b = discriminator(run, net="D_A"), discriminator(run, net="D_B")
    gan = functools.partial(losses.gan_loss, kind="lsgan")

    with tf.GradientTape(persistent=True) as tape:
        fake_b, fake_a = g_a(a, training=True), g_b(b, training=True)
        terms = {
            "G_A": gan(d_a(fake_b, training=True), real=True),
            "G_B": gan(d_b(fake_a, training=True), real=True),
            "cycle_A": 10 * losses.l1(g_b(fake_b, training=True), a),
            "cycle_B": 10 * losses.l1(g_a(fake_a, training=True), b),
            "idt_A": 5 * losses.l1(g_a(b, training=True), b),
            "idt_B": 5 * losses.l1(g_b(a, training=True), a),
        }
        g_loss = tf.reduce_mean(tf.add_n(list(terms.values())))
        for d, real, fake, name in ((d_a, b, fake_b, "D_A"), (d_b, a, fake_a, "D_B")):
            logits_of_fake = d(tf.stop_gradient(fake), training=True)
            terms[name] = (gan(d(real, training=True), True) + gan(logits_of_fake, False)) / 2

    for name, term in terms.items():
        np.testing.assert_allclose(term[0], data[f"loss/{name}"][0], rtol=1e-5, err_msg=name)
    for net, model in (("G_A", g_a), ("G_B", g_b)):
        gradients = tape.gradient(g_loss, model.trainable_variables)
        assert_gradients(data, net, RESNET, model, gradients)
    for net, model in (("D_A", d_a), ("D_B", d_b)):
        gradients = tape.gradient(terms[net], model.trainable_variables)
        assert_gradients(data, net, PATCHGAN, model, gradients)
