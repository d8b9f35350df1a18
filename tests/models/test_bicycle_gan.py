"""BicycleGAN: terms, networks, what each phase updates, replicas, micro-batches, and that it learns."""

import dataclasses

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.schedules import LinearDecay
from engine.task import Adam, Seeds, Step
from models.bicycle_gan import BicycleGan
from models.latent_networks import LatentNetworks, resnet_encoder
from models.losses import kl_from_standard_normal
from models.networks.conditioning import SideShapes, TiledConcatenation
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import normalise
from models.networks.unet import unet
from models.regularisation import Regularisation
from models.scaled_discriminators import HalveSize, ScaledDiscriminators
from tests.helpers.micro_batches import assert_same, plans_of, train

SIZE = 12
FLOAT64 = {"total_examples": 1, "precision": "float64"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyNetworks(LatentNetworks):
    """Networks of two layers, which compile in a second."""

    def build(self, input_shape, target_shape):
        image = image_input(input_shape[-1])
        latent = keras.Input((self.latent_size,), dtype=variable_dtype())
        x = Conv(4, 3, padding=1, name="conv")(TiledConcatenation(name="latent")([image, latent]))
        x = keras.layers.LeakyReLU(0.2, name="relu")(normalise(x, self.norm, name="norm"))
        x = Conv(target_shape[-1], 3, padding=1, name="out")(x)
        x = keras.layers.Activation("tanh", dtype=variable_dtype(), name="translated")(x)
        generator = keras.Model([image, latent], x, name="generator")
        x = image = image_input(target_shape[-1])
        x = normalise(Conv(4, 4, stride=2, padding=1, name="conv")(x), self.norm, name="norm")
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.LeakyReLU(0.2)(x))
        code = [keras.layers.Dense(self.latent_size, name=name)(x) for name in ("mean", "log_variance")]
        return {"generator": generator, "encoder": keras.Model(image, code, name="encoder")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyDiscriminators(ScaledDiscriminators):
    def build(self, kind, input_shape, target_shape):
        networks = {}
        for halvings, name in enumerate(self.names(kind)):
            x = image = image_input(target_shape[-1] + (input_shape[-1] if self.conditional else 0))
            for _ in range(halvings):
                x = HalveSize()(x)
            x = keras.layers.LeakyReLU(0.2)(Conv(4, 4, stride=2, padding=1, name="conv")(x))
            networks[name] = keras.Model(image, Conv(1, 3, padding=1, name="logits")(x), name=name)
        return networks


def tiny(*, norm="instance", discriminators=None, **settings):
    return BicycleGan(
        latent_networks=TinyNetworks(norm=norm, latent_size=3),
        discriminators=TinyDiscriminators(norm=norm, **(discriminators or {})),
        **{"generator_optimizer": Adam(learning_rate=1e-3), "discriminator_optimizer": Adam()} | settings,
    )


def test_kl_divergence_is_the_integral():
    draw = np.random.default_rng(0)
    mean, log_variance = draw.normal(size=(2, 3)), draw.normal(size=(2, 3))

    def divergence(mean, log_variance):
        p, q = scipy.stats.norm(mean, np.exp(log_variance / 2)), scipy.stats.norm()
        around = (mean - 12 * p.std(), mean + 12 * p.std())
        return scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), *around)[0]

    expected = [sum(map(divergence, *row)) for row in zip(mean, log_variance, strict=True)]
    np.testing.assert_allclose(kl_from_standard_normal(mean, log_variance), expected, rtol=1e-6)
    assert kl_from_standard_normal(tf.zeros([1, 8]), tf.zeros([1, 8])).numpy() == 0


@pytest.mark.parametrize("height, width", [(6, 8), (5, 7), (1, 2)])
def test_halving_takes_means_of_what_is_inside(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    expected = np.stack(
        [
            [x[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean(axis=(1, 2)) for j in range(0, width, 2)]
            for i in range(0, height, 2)
        ]
    )
    np.testing.assert_allclose(HalveSize()(x), np.moveaxis(expected, 2, 0), atol=1e-6)
    assert HalveSize().compute_output_shape(x.shape) == HalveSize()(x).shape


@pytest.mark.parametrize("latent_at", ["all", "input"])
def test_every_downsampling_sees_the_code(latent_at):
    """With kernels that are 0 for all but the code, each convolution is a matrix product with it."""
    settings = LatentNetworks(generator="unet_32", norm="none", latent_size=3, latent_at=latent_at)
    settings = dataclasses.replace(settings, generator_filters=2, encoder_filters=1)
    network = settings.build([96, 96, 1], [96, 96, 1])["generator"]
    draw = np.random.default_rng(0)
    code = draw.normal(size=(2, 3)).astype(np.float32)
    assert np.any(code < 0)  # the activation, which follows, changes these
    for level in range(1, 6):
        conv = network.get_layer(f"down_{level}_conv")
        *_, channels, _ = conv.kernel.shape
        others = 1 if level == 1 else 2 * min(2 ** (level - 2), 8)
        assert channels == others + (3 if level == 1 or latent_at == "all" else 0)
        kernel = draw.normal(size=conv.kernel.shape).astype(np.float32)
        kernel[:, :, :others] = 0
        conv.kernel.assign(kernel)
        seen = code if level == 1 else np.where(code < 0, 0.2 * code, code)
        expected = seen @ kernel[:, :, others:].sum((0, 1)) if channels > others else 0
        found = keras.Model(network.inputs, conv.output)([draw.normal(size=(2, 96, 96, 1)), code])
        middle = found[:, found.shape[1] // 2, found.shape[2] // 2]  # where the kernel is inside
        np.testing.assert_allclose(middle, expected * np.ones_like(middle), rtol=1e-4, atol=1e-4)


def convolutions(*layers):
    """Number of parameters of convolutions with biases: (kernel size, input channels, output channels)."""
    return sum(kernel**2 * channels * out + out for kernel, channels, out in layers)


@pytest.mark.parametrize("latent_at", ["all", "input"])
def test_networks_have_the_authors_sizes(latent_at):
    """Layer by layer from the authors' definitions, with n filters in place of 64; instance norm has none."""
    n, spec = 8, tf.TensorSpec([256, 256, 3], tf.float32)
    filters = {"generator_filters": n, "encoder_filters": n}
    task = BicycleGan(
        latent_networks=LatentNetworks(latent_at=latent_at, **filters),
        discriminators=ScaledDiscriminators(filters=n),
    )
    networks = task.networks({"input": spec, "target": spec})
    z = 8 if latent_at == "all" else 0
    down = [(4, 3 + 8, n), (4, n + z, 2 * n), (4, 2 * n + z, 4 * n), (4, 4 * n + z, 8 * n)]
    down += 4 * [(4, 8 * n + z, 8 * n)]
    up = [(4, 8 * n, 8 * n)] + 3 * [(4, 16 * n, 8 * n)]
    up += [(4, 16 * n, 4 * n), (4, 8 * n, 2 * n), (4, 4 * n, n), (4, 2 * n, 3)]
    encoder = [(4, 3, n)]
    for k, out in ((n, 2 * n), (2 * n, 3 * n), (3 * n, 4 * n), (4 * n, 4 * n)):
        encoder += [(3, k, k), (3, k, out), (1, k, out)]
    expected = {
        "generator": convolutions(*down, *up),
        "encoder": convolutions(*encoder) + 2 * (4 * n * 8 + 8),
    }
    for kind in ("encoded", "random"):
        for scale, m in ((1, n), (2, n // 2)):
            shapes = [(4, 3, m), (4, m, 2 * m), (4, 2 * m, 4 * m), (4, 4 * m, 8 * m), (4, 8 * m, 1)]
            expected[f"{kind}_discriminator_{scale}"] = convolutions(*shapes)
    assert {name: network.count_params() for name, network in networks.items()} == expected
    # Xavier's deviation, with the gain of the authors: 0.02 sqrt(2 / (fan in + fan out)).
    kernel = networks["generator"].get_layer("up_7_conv").kernel.numpy()
    assert kernel.std() == pytest.approx(0.02 * np.sqrt(2 / (16 * 24 * n)), rel=0.02)


def test_networks_keep_the_size_and_depend_on_the_code():
    spec = tf.TensorSpec([64, 96, 3], tf.float32)
    settings = LatentNetworks(
        generator="unet_32", encoder="resnet_32", generator_filters=2, encoder_filters=2
    )
    discriminators = ScaledDiscriminators(filters=3, conditional=True)
    grey = tf.TensorSpec([64, 96, 1], tf.float32)
    task = BicycleGan(latent_networks=settings, discriminators=discriminators)
    networks = task.networks({"input": spec, "target": grey})
    images = task.translate(networks, {"input": tf.random.stateless_uniform([2, 64, 96, 3], (0, 1))})
    assert images.shape == (2, 64, 96, 1)
    mean, log_variance = networks["encoder"](images)
    assert mean.shape == log_variance.shape == (2, 8)
    pair = tf.zeros([2, 64, 96, 4])
    assert networks["random_discriminator_1"](pair).shape == (2, 6, 10, 1)
    assert networks["random_discriminator_2"](pair).shape == (2, 2, 4, 1)
    # The innermost layers of 1x1 see the code too.
    for kernel in (w for w in networks["generator"].trainable_variables if w.path.endswith("kernel")):
        kernel.assign(30 * kernel)
    inputs = tf.zeros([3, 64, 96, 3])
    made = networks["generator"]([inputs, tf.constant([[0.0] * 8, [3.0] * 8, [0.0] * 7 + [3.0]])])
    assert len({float(tf.reduce_sum(picture)) for picture in made}) == 3


def step_of(task, networks, batch, outputs=()):
    count = tf.constant(len(batch["input"]))
    seeds = Seeds(key=tf.constant([1, 2]), global_batch=count, own=lambda x: x)
    zero = tf.constant(0, tf.int64)
    return Step(
        networks=networks,
        batch=batch,
        outputs=dict(outputs),
        state={},
        step=zero,
        examples=zero,
        seeds=seeds,
        gather=lambda x: x,
        own=lambda x: x,
    )


def test_terms_are_the_published_ones():
    set_precision("float64")
    keras.utils.set_random_seed(0)
    task = tiny(l1_weight=7.0, kl_weight=0.3, latent_weight=0.6)
    spec = tf.TensorSpec([SIZE, SIZE, 3], tf.float64)
    networks = task.networks({"input": spec, "target": spec})
    for network in networks.values():
        for variable in network.trainable_variables:
            variable.assign(20 * variable)
    draw = np.random.default_rng(1)
    batch = {role: tf.constant(draw.uniform(-1, 1, (4, SIZE, SIZE, 3))) for role in ("input", "target")}
    step = step_of(task, networks, batch)
    outputs = task.forward(step)
    step = dataclasses.replace(step, outputs=outputs)
    encoder = networks["encoder"]
    noise = step.seeds.normal("deviation", (3,)).numpy()
    z = step.seeds.normal("z", (3,)).numpy()
    assert np.abs(noise - z).min() > 1e-3 and np.ptp(z, axis=0).min() > 0.1  # each has its own noise
    mean, log_variance = (x.numpy() for x in encoder(batch["target"]))

    def generate(codes):
        return networks["generator"]([batch["input"], tf.constant(codes)]).numpy()

    fakes = {
        "encoded": generate(mean + np.sqrt(np.exp(log_variance)) * noise),
        "random": generate(z),
    }
    logits = {
        f"{kind}_{scale}_{what}": networks[f"{kind}_discriminator_{scale}"](images).numpy()
        for kind in fakes
        for scale in (1, 2)
        for what, images in (("fake", fakes[kind]), ("real", batch["target"]))
    }

    def squares(kind, what, label):
        return sum(((logits[f"{kind}_{scale}_{what}"] - label) ** 2).mean(axis=(1, 2, 3)) for scale in (1, 2))

    expected = {
        "gan_encoded": squares("encoded", "fake", 1),
        "gan_random": squares("random", "fake", 1),
        "l1": 7.0 * np.abs(fakes["encoded"] - batch["target"]).mean(axis=(1, 2, 3)),
        "kl": 0.3 * -0.5 * (1 + log_variance - mean**2 - np.exp(log_variance)).sum(axis=1),
        "latent": 0.6 * np.abs(encoder(fakes["random"])[0].numpy() - z).mean(axis=1),
    }
    terms = task.generator_loss(step)
    assert terms["latent"].reaches == ("generator",)
    terms["latent"] = terms["latent"].value
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-10, err_msg=name)
    terms = task.discriminator_loss(step)
    assert set(terms) == {"real_encoded", "fake_encoded", "real_random", "fake_random"}
    for name, value in terms.items():
        what, kind = name.split("_")
        np.testing.assert_allclose(value, squares(kind, what, what == "real"), rtol=1e-10, err_msg=name)


def moved(trainer, values):
    """Names of the networks with a weight that has changed, without the scale."""
    return {
        name.split("/")[1].removesuffix("_1").removesuffix("_2")
        for name, value in values.items()
        if name.startswith("network/") and not np.array_equal(value, trainer.initial[name])
    }


@pytest.mark.parametrize(
    "variant, terms, latent_reaches",
    [
        ("bicycle_gan", "gan_encoded gan_random l1 kl latent", {"generator"}),
        ("clr_gan", "gan_random latent", {"generator", "encoder"}),
    ],
)
def test_what_a_step_of_each_variant_moves(make_trainer, noise_pairs, variant, terms, latent_reaches):
    # Variables, so that the step is compiled only once.
    rates = [tf.Variable(1.0, dtype=tf.float64) for _ in range(2)]
    weight = tf.Variable(0.5, dtype=tf.float64)
    generator, discriminators = (Adam(schedule=lambda *_, rate=rate: rate.read_value()) for rate in rates)
    task = tiny(variant=variant, generator_optimizer=generator, discriminator_optimizer=discriminators)
    task.latent_weight = weight
    trainer = make_trainer(task, noise_pairs(size=SIZE), **FLOAT64)
    plans = plans_of(3, None, 1, 1)

    both, light = train(trainer, plans)
    terms = {f"loss/generator/{name}" for name in terms.split()}
    kinds = {name.split("_")[1] for name in terms if "gan" in name}
    discriminator_terms = {
        f"loss/discriminators/{what}_{kind}" for what in ("real", "fake") for kind in kinds
    }
    assert {
        name for name in trainer.loop._metric_names[0] if name.startswith("loss/")
    } == terms | discriminator_terms
    discriminators = {f"{kind}_discriminator" for kind in kinds}
    assert moved(trainer, light) == {"generator", "encoder"} | discriminators

    weight.assign(50.0)
    _, heavy = train(trainer, plans)
    weight.assign(0.5)
    gradients = [name for name in light if name.startswith("optimizer/generator/") and name.endswith("/m")]
    assert {n.split("/")[2] for n in gradients if light[n].any()} == {"generator", "encoder"}
    differ = {n.split("/")[2] for n in gradients if not np.array_equal(light[n], heavy[n])}
    assert differ == latent_reaches

    losses = []
    for moving, networks in ((0, {"generator", "encoder"}), (1, discriminators)):
        for index, rate in enumerate(rates):
            rate.assign(float(index == moving))
        alone, values = train(trainer, plans)
        assert moved(trainer, values) == networks
        losses.append(alone)
    # Those of the discriminators too, which come second but see the fakes made before.
    np.testing.assert_array_equal(losses[0], both)
    np.testing.assert_array_equal(losses[1], both)


@pytest.mark.parametrize(
    ("variant", "norm", "replicas"),
    [("bicycle_gan", "instance", 3), pytest.param("clr_gan", "batch", 2, marks=pytest.mark.soak)],
)
def test_replicas_and_pieces_change_nothing(make_trainer, noise_pairs, variant, norm, replicas):
    """Batches of 5, then of 1, which leave replicas without an example; with a moving average."""
    task = tiny(variant=variant, norm=norm, discriminators={"scales": 1}, ema_decay=0.9)
    data = noise_pairs(size=SIZE)

    def lively_trainer(**settings):
        """With larger weights than the initial ones, for which all outputs are nearly 0."""
        trainer = make_trainer(task, data, **FLOAT64 | settings)
        for networks in (trainer.state.networks, trainer.state.averaged):
            for network in networks.values():
                network.set_weights([30 * w if w.ndim > 1 else w for w in network.get_weights()])
        return trainer

    one, two_sizes = lively_trainer(), plans_of(5, None, 1, 3) + plans_of(1, None, 1, 2)
    whole = train(one, two_sizes)
    assert np.all(np.ptp(whole[0], axis=0) > 1e-3 * np.mean(whole[0], axis=0))  # each term changes
    averaged = {name.split("/")[1] for name in whole[1] if name.startswith("averaged")}
    assert averaged == {"generator", "encoder"}
    several = lively_trainer(cpu_replicas=replicas)
    assert_same(train(several, plans_of(5, None, replicas, 3) + plans_of(1, None, replicas, 2)), whole)
    if norm == "instance":  # micro-batches of 2, 2 and 1; batch norm normalises over a micro-batch
        assert_same(train(one, plans_of(5, 2, 1, 3) + two_sizes[3:]), whole)


def test_cvae_gan_has_no_drawn_codes():
    task = tiny(variant="cvae_gan")
    spec = tf.TensorSpec([SIZE, SIZE, 3], tf.float32)
    networks = task.networks({"input": spec, "target": spec})
    discriminators = ["encoded_discriminator_1", "encoded_discriminator_2"]
    assert list(networks) == ["generator", "encoder", *discriminators]
    assert [list(phase.updates) for phase in task.phases()] == [["generator", "encoder"], discriminators]
    images = tf.random.stateless_uniform([2, SIZE, SIZE, 3], (0, 1))
    step = step_of(task, networks, {"input": images, "target": -images})
    step = dataclasses.replace(step, outputs=task.forward(step))
    assert set(task.generator_loss(step)) == {"gan_encoded", "l1", "kl"}
    assert set(task.discriminator_loss(step)) == {"real_encoded", "fake_encoded"}


def test_each_scale_is_regularised():
    """R1 with NumPy, through the halving; conditional discriminators see the input."""
    set_precision("float64")
    keras.utils.set_random_seed(0)
    regularisation = Regularisation(r1=0.01, diff_augment=("translation",))
    settings = {"conditional": True, "gan_loss": "hinge", "regularisation": regularisation}
    task = tiny(discriminators=settings)
    assert [phase.name for phase in task.phases()] == ["generator", "discriminators", "r1"]
    spec = tf.TensorSpec([SIZE, SIZE, 3], tf.float64)
    networks = task.networks({"input": spec, "target": spec})
    draw = np.random.default_rng(1)
    batch = {role: tf.constant(draw.uniform(-1, 1, (2, SIZE, SIZE, 3))) for role in ("input", "target")}
    step = step_of(task, networks, batch)
    expected = {"penalty_encoded": 0.0, "penalty_random": 0.0}
    for name in expected:
        for scale in (1, 2):
            with tf.GradientTape() as tape:
                seen = [regularisation.augment(x, step.seeds, "real") for x in batch.values()]
                tape.watch(seen[1])
                network = networks[f"{name.split('_')[1]}_discriminator_{scale}"]
                logits = tf.reduce_mean(network(tf.concat(seen, -1)), [1, 2, 3])
            # A shift changes the norm of a gradient only by the pixels that leave the image.
            gradient = tape.gradient(logits, seen[1])
            gradient = gradient * shifted_ones(regularisation, step)
            expected[name] += 16 * 0.01 * SIZE**2 / 2 * 0.5 * np.sum(gradient**2, axis=(1, 2, 3))
    actual = task.r1_loss(step)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-10, err_msg=name)


def shifted_ones(regularisation, step):
    """1 where a pixel of the shifted image comes from the image, 0 where it was filled in."""
    return regularisation.augment(tf.ones_like(step.batch["target"]), step.seeds, "real")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneOfTwoColours:
    """A grey disc whose target is red or blue; the input does not tell which."""

    train_examples: int = 64
    size: int = 16
    is_paired: bool = True

    @property
    def example_spec(self):
        spec = tf.TensorSpec([self.size, self.size, 3], tf.float32)
        return {"input": spec, "target": spec}

    def pair(self, index):
        """Input and both of its targets, [size, size, 3] each."""
        index = tf.cast(index, tf.int32)
        draw = tf.random.stateless_uniform([3], tf.stack([index, 3]))
        rows, columns = tf.meshgrid(*2 * [tf.range(self.size, dtype=tf.float32)], indexing="ij")
        centre, radius = self.size * (0.3 + 0.4 * draw[:2]), self.size * (0.2 + 0.15 * draw[2])
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        inside = tf.cast(inside, tf.float32)[..., tf.newaxis]
        coloured = [inside * tf.constant(colour) for colour in ((0.9, -0.9, -0.9), (-0.9, -0.9, 0.9))]
        return 0.8 * inside * tf.ones([3]), *coloured

    def example(self, index):
        grey, red, blue = self.pair(index)
        is_red = tf.random.stateless_uniform([], tf.stack([tf.cast(index, tf.int32), 9])) < 0.5
        return {"input": grey, "target": tf.where(is_red, red, blue), "id": index}

    def batches(self, *, position_examples, global_batch, rows=None):
        ids = tf.data.Dataset.counter(position_examples, dtype=tf.int64)
        return ids.map(lambda index: self.example(index % self.train_examples)).batch(global_batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShallowNetworks(LatentNetworks):
    """The real builders with fewer levels than any named network has."""

    def build(self, input_shape, target_shape):
        shared = {"norm": self.norm, "filters": 4, "input_channels": 3}
        side = SideShapes(tiled=self.latent_size, tiled_at=self.latent_at)
        generator = {"output_channels": 3, "downsamplings": 3, "dropout": False, "side": side}
        encoder = {"latent_size": self.latent_size, "downsamplings": 2}
        return {
            "generator": unet(name="generator", **generator, **shared),
            "encoder": resnet_encoder(name="encoder", **encoder, **shared),
        }


def test_it_learns_that_one_input_has_two_answers(make_trainer):
    adam, data = Adam(learning_rate=5e-3), OneOfTwoColours()
    task = BicycleGan(
        latent_networks=ShallowNetworks(latent_size=2),
        discriminators=TinyDiscriminators(scales=1),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )
    trainer = make_trainer(task, data, total_examples=1)
    (plan,) = plans_of(4, None, 1, 1)
    batches = distributed_batches(trainer.devices, data, position_examples=0, plan=plan)
    trainer.loop.run(batches, num_steps=250, step=0, examples=0, layout=plan)
    grey, red, blue = next(iter(tf.data.Dataset.range(1000, 1016).map(data.pair).batch(16)))
    networks = trainer.state.evaluation_networks
    columns = [task.preview(networks, {"input": grey, "target": target}) for target in (red, blue)]
    # One answer for both is wrong by half the distance on average.
    one_answer = 0.5 * np.abs(red - blue).mean()
    errors = [np.abs(c["encoded"] - c["target"]).mean() for c in columns]
    assert np.mean(errors) < 0.65 * one_answer  # 0.43 to 0.47 with three seeds
    assert list(columns[0]) == ["input", "target", "encoded"] + [f"random_{index}" for index in range(4)]
    drawn, again = ([c[f"random_{index}"] for index in range(4)] for c in columns)
    apart = max(np.abs(a - b).mean() for a in drawn for b in drawn)
    assert apart > 0.5 * one_answer  # 1.1 to 1.4
    np.testing.assert_array_equal(drawn, again)  # always the same codes


def test_settings_that_cannot_work_are_refused():
    def networks(size):
        spec = tf.TensorSpec([*size, 3], tf.float32)
        latent = LatentNetworks(generator="unet_32", generator_filters=1, encoder_filters=1)
        return BicycleGan(latent_networks=latent).networks({"input": spec, "target": spec})

    with pytest.raises(
        ConfigurationError, match="variant = 'bicycle': unknown; use one of bicycle_gan, cvae"
    ):
        BicycleGan(variant="bicycle")
    with pytest.raises(ConfigurationError, match="generator = 'unet_100': unknown; use one of unet_32"):
        LatentNetworks(generator="unet_100")
    with pytest.raises(ConfigurationError, match="latent_at = 'middle': unknown; use one of all, input"):
        LatentNetworks(latent_at="middle")
    with pytest.raises(ConfigurationError, match="latent_size = 0: must be at least 1"):
        LatentNetworks(latent_size=0)
    with pytest.raises(ConfigurationError, match="scales = 0: must be at least 1"):
        ScaledDiscriminators(scales=0)
    with pytest.raises(ConfigurationError, match="norm = 'batch': mixes examples"):
        ScaledDiscriminators(norm="batch", gan_loss="wgan_gp")
    with pytest.raises(ConfigurationError, match="32x40 pixels .* multiples of 32.* resize them to 32x32$"):
        networks((32, 40))  # the message lists only networks that take a code
    with pytest.raises(ConfigurationError, match="scales = 2: at the smallest, .* of 16x32 .* fewer scales"):
        networks((32, 64))


def test_gin_file_has_the_published_settings():
    experiment, _ = loader.load_experiment(gin_files=["gin/bicycle_gan.gin"])
    task = experiment.task
    assert task.kinds == ("encoded", "random") and task.ema_decay is None
    # Those of the authors' scripts, which set dropout, the size and the length beside their defaults.
    assert task.latent_networks == LatentNetworks(dropout=True)
    assert (experiment.data.load_size, experiment.data.crop_size) == (256, 256)
    # A step of theirs draws 2 examples and translates one, so 200 + 200 of their epochs are 100 + 100.
    assert (experiment.batch_schedule, experiment.total_examples) == (1, "200ep")
    assert (task.l1_weight, task.kl_weight, task.latent_weight) == (10, 0.01, 0.5)
    assert task.discriminators == ScaledDiscriminators(
        scales=2, filters=64, conditional=False, norm="instance", gan_loss="lsgan"
    )
    for optimizer in task.optimizers.values():
        assert (optimizer.learning_rate, optimizer.beta1) == (2e-4, 0.5)
        assert optimizer.schedule == LinearDecay(constant="50%", decay="50%")
    other, _ = loader.load_experiment(
        gin_files=["gin/bicycle_gan.gin"],
        gin_params=['bicycle_gan.BicycleGan.variant = "cvae_gan"', "bicycle_gan.BicycleGan.ema_decay = 0.9"],
    )
    assert other.task.kinds == ("encoded",) and other.task.phases()[0].ema_decay == 0.9
