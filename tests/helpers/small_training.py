"""Data made up in memory and networks that compile in a second."""

import dataclasses

import keras
import tensorflow as tf

from models.networks.dropout import Dropout
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import normalise
from models.pix2pix import Pix2Pix


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePairs:
    """Training data made up in memory: smooth random inputs, targets that depend on them.

    Example k of the endless stream is a pure function of k modulo `train_examples`, so any position can
    be asked for. Fulfils `engine.training_data.TrainingData`.
    """

    train_examples: int = 12
    size: int = 64
    evaluation_split: str = "val"
    is_paired: bool = True
    colour_space: str = "rgb"

    @property
    def example_spec(self):
        spec = tf.TensorSpec([self.size, self.size, 3], tf.float32)
        return {"input": spec, "target": spec}

    def example(self, index):
        """One example: "input", "target" [size, size, 3] and "id"."""
        seed = tf.stack([tf.cast(index, tf.int32), 7])
        coarse = tf.random.stateless_uniform([8, 8, 3], seed, -1.0, 1.0)
        picture = tf.image.resize(coarse, [self.size, self.size])
        return {"input": picture, "target": picture[..., ::-1] * 0.5, "id": index}

    def batches(self, *, position_examples, global_batch, rows=None):
        ids = tf.data.Dataset.counter(position_examples, dtype=tf.int64)
        if rows is not None:
            ids = ids.enumerate().filter(lambda n, _: tf.reduce_any(n % global_batch == rows))
            ids = ids.map(lambda _, index: index)
            global_batch = len(rows)
        return ids.map(lambda index: self.example(index % self.train_examples)).batch(global_batch)

    def notes(self):
        return []

    def evaluation(self, split, *, batch):
        first = {"train": 0, "val": 1000, "test": 2000}[split]
        ids = tf.data.Dataset.range(first, first + 5)
        return ids.map(self.example).batch(batch)


class SmallPix2Pix(Pix2Pix):
    """pix2pix with networks of two layers: compiled in a second, with norm and dropout."""

    def networks(self, example):
        inputs, outputs = (example[role].shape[-1] for role in ("input", "target"))

        def network(name, channels_in, channels_out, activation, stride):
            x = image = image_input(channels_in)
            x = Conv(4, 4, stride=2, padding=1, name="conv")(x)
            x = normalise(x, self.norm, inference_norm=self.inference_norm, name="norm")
            x = keras.layers.Activation("relu", name="relu")(x)
            if self.dropout and stride == 1:
                x = Dropout(0.5, name="dropout")(x)
            if stride == 1:
                x = keras.layers.UpSampling2D(name="up")(x)
            x = Conv(channels_out, 3, stride=stride, padding=1, name="out")(x)
            x = keras.layers.Activation(activation, dtype=variable_dtype(), name="activation")(x)
            return keras.Model(image, x, name=name)

        return {
            "generator": network("generator", inputs, outputs, "tanh", 1),
            "discriminator": network("discriminator", inputs + outputs, 3, "linear", 2),
        }
