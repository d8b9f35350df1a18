"""A peer of `compare`: a bare `tf.function` loop, the way TensorFlow's pix2pix tutorial teaches it.

Written anew from the tutorial's description: its U-Net and PatchGAN of `keras.layers`, one forward pass of
each network for both updates, two tapes, two `keras.optimizers.Adam`. Compared with the reference and this
project, a step has one forward pass of the discriminator less.
"""

import argparse

import keras
import tensorflow as tf

from tests.benchmarks.training_step.peer_protocol import serve


def _down(x, filters, *, norm=True, stride=2, padding="same"):
    x = keras.layers.Conv2D(
        filters, 4, strides=stride, padding=padding, use_bias=False, kernel_initializer=_initial()
    )(x)
    if norm:
        x = keras.layers.BatchNormalization()(x)
    return keras.layers.LeakyReLU()(x)


def _up(x, filters, *, dropout):
    x = keras.layers.Conv2DTranspose(
        filters, 4, strides=2, padding="same", use_bias=False, kernel_initializer=_initial()
    )(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU()(keras.layers.Dropout(0.5)(x) if dropout else x)


def _initial():
    return keras.initializers.RandomNormal(stddev=0.02)


def build_generator() -> keras.Model:
    """A U-Net of eight levels: [B, 256, 256, 3] to the same."""
    x = image = keras.Input([256, 256, 3])
    skips = []
    for filters in (64, 128, 256, 512, 512, 512, 512, 512):
        x = _down(x, filters, norm=bool(skips))
        skips.append(x)
    for level, filters in enumerate((512, 512, 512, 512, 256, 128, 64)):
        x = keras.layers.Concatenate()([_up(x, filters, dropout=level < 3), skips[-2 - level]])
    x = keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", activation="tanh", kernel_initializer=_initial()
    )(x)
    return keras.Model(image, x)


def build_discriminator() -> keras.Model:
    """A PatchGAN: two images [B, 256, 256, 3] to logits [B, 30, 30, 1]."""
    image, target = keras.Input([256, 256, 3]), keras.Input([256, 256, 3])
    x = keras.layers.Concatenate()([image, target])
    x = _down(_down(_down(x, 64, norm=False), 128), 256)
    x = _down(keras.layers.ZeroPadding2D()(x), 512, stride=1, padding="valid")
    x = keras.layers.Conv2D(1, 4, kernel_initializer=_initial())(keras.layers.ZeroPadding2D()(x))
    return keras.Model([image, target], x)


def main() -> None:
    """Serves steps on a constant batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    generator, discriminator = build_generator(), build_discriminator()
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizers = [keras.optimizers.Adam(2e-4, beta_1=0.5) for _ in range(2)]
    for optimizer, network in zip(optimizers, (generator, discriminator), strict=True):
        optimizer.build(network.trainable_variables)

    @tf.function
    def step(image, target):
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            fake = generator(image, training=True)
            of_real = discriminator([image, target], training=True)
            of_fake = discriminator([image, fake], training=True)
            l1 = tf.reduce_mean(tf.abs(target - fake))
            generator_loss = cross_entropy(tf.ones_like(of_fake), of_fake) + 100.0 * l1
            discriminator_loss = cross_entropy(tf.ones_like(of_real), of_real)
            discriminator_loss += cross_entropy(tf.zeros_like(of_fake), of_fake)
        for optimizer, tape, loss, network in (
            (optimizers[0], generator_tape, generator_loss, generator),
            (optimizers[1], discriminator_tape, discriminator_loss, discriminator),
        ):
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return generator_loss, discriminator_loss

    images = [
        tf.random.stateless_uniform([options.batch, 256, 256, 3], [7, seed], -1.0, 1.0) for seed in range(2)
    ]
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        serve(lambda: [loss.numpy() for loss in step(*images)])
        return
    last = []
    serve(
        lambda: last.__setitem__(slice(None), step(*images)),
        finish=lambda: [loss.numpy() for loss in last],
        peak_bytes=lambda: tf.config.experimental.get_memory_info(gpus[0].name)["peak"],
    )


if __name__ == "__main__":
    main()
