"""A small CycleGAN, written as a user would write a task."""

import keras
import tensorflow as tf

from engine.task import Adam, Phase, Task
from models.losses import gan_loss, l1
from models.networks.layers import image_input

POOL, SIZE = 3, 16


class SmallCycleGan(Task):
    """Generators first, through one forward pass; then discriminators on fakes from a pool."""

    def __init__(self):
        self.optimizers = {"generators": Adam(), "discriminators": Adam()}

    def networks(self, example):
        def network(name, activation, strides):
            x = image = image_input(3)
            x = keras.layers.Conv2D(4, 3, strides=strides, padding="same", activation="relu")(x)
            output = keras.layers.Conv2D(3, 3, padding="same", activation=activation)(x)
            return keras.Model(image, output, name=name)

        generators = {name: network(name, "tanh", 1) for name in ("a_to_b", "b_to_a")}
        return generators | {name: network(name, None, 2) for name in ("judge_a", "judge_b")}

    def state(self, example):
        dtype = keras.config.floatx()
        return {
            "pool": tf.Variable(tf.zeros([POOL, SIZE, SIZE, 3], dtype), trainable=False),
            "stored": tf.Variable(0, trainable=False),
        }

    def phases(self):
        return (
            Phase(
                name="generators",
                loss=self.generate,
                updates=("a_to_b", "b_to_a"),
                optimizer="generators",
            ),
            Phase(
                name="discriminators",
                loss=self.judge,
                updates=("judge_a", "judge_b"),
                optimizer="discriminators",
            ),
        )

    def forward(self, step):
        a_to_b, b_to_a = step.networks["a_to_b"], step.networks["b_to_a"]
        fake_b, fake_a = a_to_b(step.batch["input"]), b_to_a(step.batch["target"])
        return {"fake_b": fake_b, "fake_a": fake_a, "cycle_a": b_to_a(fake_b), "cycle_b": a_to_b(fake_a)}

    def generate(self, step):
        outputs = step.outputs
        judged = {side: step.networks[f"judge_{side}"](outputs[f"fake_{side}"]) for side in "ab"}
        return {
            "gan_a": gan_loss(judged["a"], real=True, kind="lsgan"),
            "gan_b": gan_loss(judged["b"], real=True, kind="lsgan"),
            "cycle": 10 * l1(outputs["cycle_a"], step.batch["input"])
            + 10 * l1(outputs["cycle_b"], step.batch["target"]),
        }

    def judge(self, step):
        fakes = {"a": step.outputs["fake_a"], "b": self.pooled(step, step.outputs["fake_b"])}
        reals = {"a": step.batch["input"], "b": step.batch["target"]}
        terms = {}
        for side in "ab":
            network = step.networks[f"judge_{side}"]
            terms[f"fake_{side}"] = gan_loss(network(fakes[side]), real=False, kind="lsgan")
            terms[f"real_{side}"] = gan_loss(network(reals[side]), real=True, kind="lsgan")
        return terms

    def pooled(self, step, fakes):
        """Every image in example order: stored while there is room, later swapped half of the time."""
        whole = step.gather(fakes)  # [global batch, H, W, C]
        count = tf.shape(whole)[0]
        chances = step.gather(step.seeds.uniform("swap", ()))  # [examples], those of the rows gathered
        slots = tf.cast(POOL * step.gather(step.seeds.uniform("slot", ())), tf.int32)

        def insert(i, pool, stored, returned):
            fill, swap = stored < POOL, chances[i] > 0.5
            slot = tf.where(fill, stored, slots[i])
            image = tf.where(~fill & swap, pool[slot], whole[i])
            kept = tf.where(fill | swap, whole[i], pool[slot])
            pool = tf.tensor_scatter_nd_update(pool, [[slot]], [kept])
            return i + 1, pool, tf.minimum(stored + 1, POOL), returned.write(i, image)

        _, pool, stored, returned = tf.while_loop(
            lambda i, *_: i < count,
            insert,
            (
                0,
                step.state["pool"].read_value(),
                step.state["stored"].read_value(),
                tf.TensorArray(whole.dtype, count, element_shape=whole.shape[1:]),
            ),
        )
        step.state["pool"].assign(pool)
        step.state["stored"].assign(stored)
        return step.own(returned.stack())

    def translate(self, networks, batch):
        return networks["a_to_b"](batch["input"])
