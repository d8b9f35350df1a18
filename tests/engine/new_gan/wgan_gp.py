"""WGAN-GP on image pairs (Gulrajani et al., arXiv 1704.00028), as a user of Gantry would write it."""

import keras

from engine.task import Adam, Phase, Task, gradient_norm


class WganGp(Task):
    """A generator of pictures, and a critic whose gradient is kept near norm 1."""

    def __init__(self, *, filters: int = 8, penalty_weight: float = 10.0, optimizer: Adam):
        self.filters = filters
        self.penalty_weight = penalty_weight
        self.optimizers = {"generator": optimizer, "critic": optimizer}

    def networks(self, example):
        height, width, channels = example["target"].shape
        dtype = keras.config.floatx()  # of pictures and scores, also where layers compute in float16
        image = keras.Input((height, width, channels), dtype=dtype)
        hidden = keras.layers.Conv2D(self.filters, 5, padding="same", activation="relu")(image)
        output = keras.layers.Conv2D(channels, 5, padding="same", activation="tanh", dtype=dtype)(hidden)
        seen = keras.layers.Conv2D(self.filters, 4, strides=4, activation="softplus")(image)
        score = keras.layers.Dense(1, dtype=dtype)(keras.layers.GlobalAveragePooling2D()(seen))
        return {"generator": keras.Model(image, output), "critic": keras.Model(image, score)}

    def phases(self):
        return (
            Phase(name="critic", loss=self.critic, updates=("critic",), optimizer="critic"),
            Phase(
                name="generator",
                loss=self.generate,
                updates=("generator",),
                optimizer="generator",
                every=2,
                ema_decay=0.9,
            ),
        )

    def forward(self, step):
        return {"fake": step.networks["generator"](step.batch["input"], training=True)}

    def critic(self, step):
        critic, real, fake = step.networks["critic"], step.batch["target"], step.outputs["fake"]
        share = step.seeds.uniform("share", (1, 1, 1))  # [B, 1, 1, 1]
        norm = gradient_norm(critic, share * real + (1 - share) * fake)  # [B]
        return {
            "distance": critic(fake)[:, 0] - critic(real)[:, 0],
            "penalty": self.penalty_weight * (norm - 1) ** 2,
        }

    def generate(self, step):
        return {"score": -step.networks["critic"](step.outputs["fake"])[:, 0]}

    def translate(self, networks, batch):
        return networks["generator"](batch["input"], training=False)
