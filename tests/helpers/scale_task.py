"""A task so small that its steps can be computed by hand."""

import keras
import numpy as np
import tensorflow as tf

from engine.task import Adam, Phase, Task

SIZE = 16


class Scale(Task):
    """One weight w for each channel: output = w * input; two networks to update. Solved by hand below."""

    def __init__(self, phases=None, adam=None, noise=False):
        self.optimizers = {"adam": adam or Adam(learning_rate=0.1, beta1=0.5, beta2=0.9)}
        self._phases = phases
        self._noise = noise

    def networks(self, example):
        def scale(name):
            image = keras.Input((SIZE, SIZE, 3))
            layer = keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones")
            x = keras.layers.Dropout(0.5)(image) if self._noise else image
            return keras.Model(image, layer(x), name=name)

        return {"first": scale("first"), "second": scale("second")}

    def phases(self):
        return self._phases or (Phase(name="fit", loss=self.fit, updates=("first",), optimizer="adam"),)

    def forward(self, step):
        return {"first": step.networks["first"](step.batch["input"], training=True)}

    def fit(self, step):
        error = step.outputs["first"] - step.batch["target"]
        return {"square": tf.reduce_mean(error**2, axis=[1, 2, 3])}

    def translate(self, networks, batch):
        return networks["first"](batch["input"])


def images(data, positions):
    examples = [data.example(p % data.train_examples) for p in positions]
    return [np.stack([example[key] for example in examples]) for key in ("input", "target")]
