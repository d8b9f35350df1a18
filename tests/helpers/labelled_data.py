"""Images with labels, made up in memory: the label is what is easiest to see."""

import dataclasses

import numpy as np
import tensorflow as tf

CLASS_NAMES = ("dark", "grey", "bright")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeUpLabels:
    """Noise around a level of brightness, and the level as class or as number; fulfils `TrainingData`.

    Example k of the endless stream is a pure function of k modulo `train_examples`.
    """

    kind: str = "classes"
    train_examples: int = 24
    evaluation_examples: int = 11
    size: int = 16
    channels: int = 3
    has_vector: bool = False
    evaluation_split: str = "val"
    is_paired: bool = True
    colour_space: str = "rgb"

    target_scale = 40.0
    target_offset = 1000.0

    @property
    def target_kind(self):
        return self.kind

    @property
    def target_names(self):
        return CLASS_NAMES if self.kind == "classes" else ("level",)

    @property
    def target_statistics(self):
        targets = np.array([self.example(k)["target"] for k in range(self.train_examples)], np.float64)
        return targets.mean(axis=0), targets.std(axis=0)

    @property
    def example_spec(self):
        spec = {
            "input": tf.TensorSpec([self.size, self.size, self.channels], tf.float32),
            "target": tf.TensorSpec([len(self.target_names)], tf.float32),
        }
        return spec | ({"side_vector": tf.TensorSpec([2], tf.float32)} if self.has_vector else {})

    def example(self, index):
        index = tf.cast(index, tf.int32)
        level = tf.random.stateless_uniform([], tf.stack([index, 1]), -1.0, 1.0)
        shape = [self.size, self.size, self.channels]
        noise = tf.random.stateless_normal(shape, tf.stack([index, 2]), stddev=0.1)
        if self.kind == "classes":
            place = tf.minimum(tf.cast((level + 1.0) * 1.5, tf.int32), 2)
            target = tf.one_hot(place, 3)
        else:
            target = tf.reshape(self.target_offset + self.target_scale * level, [1])
        made = {"input": 0.8 * level + noise, "target": target, "name": tf.strings.as_string(index)}
        return made | ({"side_vector": tf.stack([level, 1.0])} if self.has_vector else {})

    def batches(self, *, position_examples, global_batch, rows=None):
        ids = tf.data.Dataset.counter(position_examples, dtype=tf.int64)
        examples = ids.map(lambda index: self.example(index % self.train_examples))
        examples = examples.map(lambda each: {name: x for name, x in each.items() if name != "name"})
        return examples.batch(global_batch)

    def notes(self):
        return []

    def check_records(self, split, position_examples=None):
        pass

    def evaluation(self, split, *, batch):
        first, count = {
            "train": (0, self.train_examples),
            "val": (1000, self.evaluation_examples),
            "test": (2000, self.evaluation_examples),
        }[split]
        return tf.data.Dataset.range(first, first + count).map(self.example).batch(batch)
