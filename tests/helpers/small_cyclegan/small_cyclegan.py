"""CycleGAN with networks of two layers, traced in seconds, that notes which examples it drew."""

import keras
import tensorflow as tf

from models.cyclegan import CycleGan
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import normalise


class SmallCycleGan(CycleGan):
    """Everything of `CycleGan` but the size of its networks.

    The state has `drawn`, int64 [noted], ids of inputs in the order in which steps took them, -1 where none
    is yet, and `drawn_count`.

    Args:
      noted: how many ids are kept; no more examples may be drawn.
      dropout: noise in the generators, as of `CycleGan`; the other arguments are its own, too.
    """

    def __init__(self, *, noted: int, dropout: bool = False, **settings):
        super().__init__(dropout=dropout, **settings)
        self.dropout = dropout
        self.noted = noted

    def networks(self, example):
        def network(name, channels, made, activation, stride):
            x = image = image_input(channels)
            x = Conv(4, 3, stride=stride, padding=1, name="conv")(x)
            x = normalise(x, self.norm, name="norm")
            x = keras.layers.Activation("relu", name="relu")(x)
            if self.dropout and stride == 1:
                x = keras.layers.Dropout(0.5, name="dropout")(x)
            x = Conv(made, 3, padding=1, name="out")(x)
            x = keras.layers.Activation(activation, dtype=variable_dtype(), name="activation")(x)
            return keras.Model(image, x, name=name)

        a, b = (example[side].shape[-1] for side in ("input", "target"))
        networks = (
            network("input_to_target", a, b, "tanh", 1),
            network("target_to_input", b, a, "tanh", 1),
            network("input_discriminator", a, 1, "linear", 2),
            network("target_discriminator", b, 1, "linear", 2),
        )
        return {network.name: network for network in networks}

    def state(self, example):
        return {
            **super().state(example),
            "drawn": tf.Variable(
                tf.fill([self.noted], tf.constant(-1, tf.int64)), trainable=False, name="drawn"
            ),
            "drawn_count": tf.Variable(0, trainable=False, name="drawn_count"),
        }

    def discriminator_loss(self, step):
        self._note(step)
        return super().discriminator_loss(step)

    def reconstruction_loss(self, step):  # before the discriminators join
        self._note(step)
        return super().reconstruction_loss(step)

    def _note(self, step):
        drawn, count = step.state["drawn"], step.state["drawn_count"]
        ids = step.gather(step.batch["id"])  # [examples]
        places = count.read_value() + tf.range(tf.shape(ids)[0])
        drawn.scatter_update(tf.IndexedSlices(ids, places))
        count.assign_add(tf.shape(ids)[0])
