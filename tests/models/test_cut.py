"""CUT and FastCUT: PatchNCE against NumPy, gradients, replicas, micro-batches, and what it learns."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import DataError
from data.pairs import PairedImages
from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.schedules import LinearDecay
from engine.task import Adam, Seeds
from models import losses
from models.cut import Cut
from models.discriminators.domain_discriminator import DomainDiscriminator
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import normalise
from models.patch_nce import PatchNce, gather_patches, sample_positions
from models.regularisation import Regularisation
from tests.helpers.micro_batches import assert_same, plans_of, train

SIZE = 16
SIDES = ("input", "target")
FLOAT64 = {"total_examples": 1, "precision": "float64"}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 3, shape)


def seeds_of(examples, own=lambda x: x):
    return Seeds(key=tf.constant([3, 4]), global_batch=tf.constant(examples), own=own)


def numpy_nce(queries, keys, temperature):
    """Cross entropy with each query's own key as the class, in loops over examples and patches."""
    # The reference adds 1e-7 to lengths.
    queries, keys = (x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-7) for x in (queries, keys))
    found = []
    for q, k in zip(queries, keys, strict=True):
        values = []
        for p in range(len(q)):
            exponentials = np.exp([q[p] @ k[n] / temperature for n in range(len(k))])
            values.append(-np.log(exponentials[p] / exponentials.sum()))
        found.append(np.mean(values))
    return np.array(found)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_patch_nce_is_a_cross_entropy_over_the_patches_of_an_example(temperature):
    queries, keys = random(3, 6, 5), random(3, 6, 5, seed=1)
    expected = numpy_nce(queries, keys, temperature)
    found = losses.patch_nce(queries, keys, temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # The length of long vectors does not matter, that of short ones does.
    longer = losses.patch_nce(1e9 * queries, 1e5 * keys, temperature=temperature)
    np.testing.assert_allclose(longer, numpy_nce(1e9 * queries, 1e5 * keys, temperature), rtol=1e-10)
    np.testing.assert_allclose(longer, expected, rtol=1e-6)
    for length in (1e-7, 1e-9):
        short = losses.patch_nce(length * queries, length * keys, temperature=temperature)
        np.testing.assert_allclose(short, numpy_nce(length * queries, length * keys, temperature), rtol=1e-10)
        assert np.all(np.abs(short / expected - 1) > 1e-3)
    alone = losses.patch_nce(queries[1:2], keys[1:2], temperature=temperature)
    np.testing.assert_allclose(alone, expected[1:2], rtol=1e-10)  # nor other examples


def test_patch_nce_where_the_answer_is_known():
    same = tf.ones((2, 7, 4), tf.float64)
    np.testing.assert_allclose(losses.patch_nce(same, same), np.log(7), rtol=1e-12)
    apart = tf.eye(7, batch_shape=[2], dtype=tf.float64)
    expected = np.log1p(6 * np.exp(-((1 + 1e-7) ** -2) / 0.5))
    np.testing.assert_allclose(losses.patch_nce(apart, apart, temperature=0.5), expected, rtol=1e-12)
    assert losses.patch_nce(tf.cast(same, tf.bfloat16), tf.cast(same, tf.bfloat16)).dtype == tf.float32


def test_patch_nce_learns_from_queries_only_and_bears_empty_rows():
    queries, keys = tf.constant(random(2, 4, 5)), tf.constant(random(2, 4, 5, seed=1))
    with tf.GradientTape() as tape:
        tape.watch([queries, keys])
        value = losses.patch_nce(queries, keys)
    by_query, by_key = tape.gradient(value, [queries, keys])
    assert by_key is None and np.all(np.any(by_query != 0, axis=-1))
    empty = tf.zeros((1, 4, 5))
    with tf.GradientTape() as tape:
        tape.watch(empty)
        value = losses.patch_nce(empty, empty)
    assert np.all(np.isfinite(tape.gradient(value, empty)))


def test_the_gradient_of_patch_nce_is_that_of_the_reference_for_short_vectors():
    queries, keys = 1e-7 * random(1, 4, 5), 1e-7 * random(1, 4, 5, seed=1)
    variable = tf.constant(queries)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = losses.patch_nce(variable, keys)
    direction, nudge = random(1, 4, 5, seed=2), 1e-12
    ends = [numpy_nce(queries + sign * nudge * direction, keys, 0.07) for sign in (1, -1)]
    slope = np.sum(ends[0] - ends[1]) / (2 * nudge)
    np.testing.assert_allclose(np.sum(tape.gradient(value, variable) * direction), slope, rtol=1e-5)


def test_positions_are_distinct_uniform_and_differ_between_examples():
    places = sample_positions(seeds_of(400), "here", of=12, count=5).numpy()
    assert places.shape == (400, 5)
    assert all(len(set(row)) == 5 for row in places) and places.min() == 0 and places.max() == 11
    counts = np.bincount(places.ravel(), minlength=12)  # 400 * 5 / 12 = 167, deviation 9.9
    assert np.all(np.abs(counts - 400 * 5 / 12) < 5 * 9.9)
    assert len({tuple(row) for row in places}) > 390
    np.testing.assert_array_equal(sample_positions(seeds_of(400), "here", of=12, count=5), places)
    assert np.any(sample_positions(seeds_of(400), "there", of=12, count=5) != places)
    # The rows of another replica or micro-batch are the same.
    own = sample_positions(seeds_of(400, own=lambda x: x[7:9]), "here", of=12, count=5)
    np.testing.assert_array_equal(own, places[7:9])
    assert sample_positions(seeds_of(2), "here", of=3, count=256).shape == (2, 3)


def test_patches_are_the_vectors_at_their_positions():
    features, places = random(2, 3, 4, 5), np.array([[11, 0], [5, 6]])
    expected = [[features[0, 2, 3], features[0, 0, 0]], [features[1, 1, 1], features[1, 1, 2]]]
    np.testing.assert_array_equal(gather_patches(tf.constant(features), places), expected)


def small_generator(norm, width=6):
    """An encoder of two layers, one of half the size, and a decoder."""
    x = image = image_input(3)
    x = Conv(width, 3, padding=1, name="first")(x)
    x = keras.layers.ReLU(name="first_relu")(normalise(x, norm, name="first_norm"))
    x = Conv(2 * width, 4, stride=2, padding=1, name="down")(x)
    x = keras.layers.ReLU(name="down_relu")(x)
    x = keras.layers.UpSampling2D(name="up")(x)
    x = keras.layers.Concatenate(name="skip")([x, image])
    x = Conv(3, 3, padding=1, name="out")(x)
    x = keras.layers.Activation("tanh", dtype=variable_dtype(), name="translated")(x)
    return keras.Model(image, x, name="generator")


class TinyCut(Cut):
    """Networks of few layers, which compile in a second."""

    def networks(self, example):
        generator = small_generator(self.norm)
        x = image = image_input(3)
        x = keras.layers.LeakyReLU(0.2)(Conv(8, 4, stride=2, padding=1, name="conv")(x))
        x = normalise(x, self.norm, name="norm")
        x = Conv(1, 3, padding=1, name="logits")(x)
        discriminator = keras.Model(image, x, name="discriminator")
        return {
            "generator": generator,
            "discriminator": discriminator,
            "projector": self.nce.projector(generator),
        }


def tiny(**settings):
    return PatchNce(**{"layers": ("first", "down"), "patches": 9, "width": 8} | settings)


def test_the_loss_of_a_layer_is_that_of_its_projected_patches():
    """Against NumPy, from the features; only queries have gradients."""
    keras.config.set_dtype_policy("float64")
    generator, nce = small_generator("instance"), tiny()
    projector = nce.projector(generator)
    for number, weight in enumerate(projector.weights):
        weight.assign(random(*weight.shape, seed=number))
    source, made = (tf.constant(random(2, SIZE, SIZE, 3, seed=s)) for s in (7, 8))

    def numpy_projection(x, layer):
        hidden, projected = (projector.get_layer(f"{kind}_{layer}") for kind in ("hidden", "projected"))
        x = np.maximum(x @ hidden.kernel.numpy() + hidden.bias.numpy(), 0)
        return x @ projected.kernel.numpy() + projected.bias.numpy()

    expected, seeds = 0, seeds_of(2)
    encode = losses.with_activations(generator, nce.layers)
    for layer, (key, query) in enumerate(zip(encode(source), encode(made), strict=True)):
        places = sample_positions(
            seeds, f"a/{nce.layers[layer]}", of=key.shape[1] * key.shape[2], count=9
        ).numpy()
        rows = np.arange(2)[:, None]
        key, query = (x.numpy().reshape(2, -1, x.shape[-1])[rows, places] for x in (key, query))
        expected += numpy_nce(numpy_projection(query, layer), numpy_projection(key, layer), 0.07) / 2
    with tf.GradientTape() as tape:
        tape.watch([source, made])
        found = nce(generator, projector, source, made, seeds=seeds, name="a")
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    weights = [generator.get_layer("first").kernel.value, projector.get_layer("hidden_1").kernel.value]
    by_source, by_made, *by_weights = tape.gradient(found, [source, made, *weights])
    assert by_source is None and all(np.any(x != 0) for x in (by_made, *by_weights))
    # The same image twice: each patch is most similar to itself.
    assert np.all(nce(generator, projector, source, source, seeds=seeds, name="a") < found)


def test_micro_batches_and_replicas_change_nothing(make_trainer, noise_pairs):
    task, data = TinyCut(nce=tiny()), noise_pairs(size=SIZE)
    one = make_trainer(task, data, **FLOAT64)
    whole = train(one, plans_of(4, None, 1, 3))
    assert np.all(np.isfinite(whole[0])) and np.all(np.ptp(whole[0], axis=0) > 1e-6)
    assert_same(train(one, plans_of(4, 3, 1, 3)), whole)
    three = make_trainer(task, data, cpu_replicas=3, **FLOAT64)
    assert_same(train(three, plans_of(4, None, 3, 3)), whole)  # 2, 2 and no example


@pytest.mark.soak
def test_regularised_fastcut_on_two_replicas_keeps_an_average(make_trainer, noise_pairs):
    task = TinyCut(
        nce=tiny(),
        nce_weight=10.0,
        nce_identity=False,
        flip_equivariance=True,
        ema_decay=0.9,
        gan_loss="hinge",
        regularisation=Regularisation(r1=0.01, r1_every=1, diff_augment=("colour",)),
    )
    data = noise_pairs(size=SIZE)
    whole = train(make_trainer(task, data, **FLOAT64), plans_of(5, None, 1, 3))
    assert np.all(np.isfinite(whole[0])) and np.all(np.ptp(whole[0], axis=0) > 1e-6)
    trainer = make_trainer(task, data, cpu_replicas=2, **FLOAT64)
    assert_same(train(trainer, plans_of(5, None, 2, 3)), whole)
    averages = {name for name in whole[1] if name.startswith("averaged/generator/")}
    assert averages and not any(name.startswith("averaged/discriminator/") for name in whole[1])
    kernel = next(name for name in averages if "kernel" in name)
    assert np.any(whole[1][kernel] != whole[1][kernel.replace("averaged", "network")])


def test_fastcut_mirrors_half_of_the_examples_and_their_features_back():
    class Passing(TinyCut):
        """A generator of single pixels, which commutes with mirroring."""

        def networks(self, example):
            image = image_input(3)
            generator = keras.Model(image, Conv(3, 1, name="point")(image), name="generator")
            return {"generator": generator, "projector": self.nce.projector(generator)}

    task = Passing(nce=tiny(layers=("point",)), flip_equivariance=True)
    networks = task.networks({})
    images = {side: tf.constant(random(64, 4, 4, 3, seed=s), tf.float32) for s, side in enumerate(SIDES)}
    step = types.SimpleNamespace(networks=networks, batch=images, seeds=seeds_of(64))
    step.outputs = task.forward(step)
    plain, is_mirrored = {}, {}
    for side, made in zip(SIDES, ("fake", "identity"), strict=True):
        plain[side] = networks["generator"](images[side]).numpy()
        is_plain, is_mirrored[side] = (
            np.all(np.isclose(step.outputs[made], x, atol=1e-5), axis=(1, 2, 3))
            for x in (plain[side], plain[side][:, :, ::-1])
        )
        np.testing.assert_array_equal(is_plain, ~is_mirrored[side])
    np.testing.assert_array_equal(is_mirrored["input"], is_mirrored["target"])
    assert 16 < is_mirrored["input"].sum() < 48  # of 64, deviation 4
    unmirrored = task.nce(*networks.values(), images["input"], plain["input"], seeds=step.seeds, name="input")
    np.testing.assert_allclose(task._nce(step, "input", "fake"), unmirrored, rtol=1e-4)


def test_networks_have_the_published_sizes_and_initial_kernels():
    spec = tf.TensorSpec([256, 256, 3], tf.float32)
    networks = Cut().networks({"input": spec, "target": spec})
    # CycleGAN's generator and discriminator, as published, and a perceptron for each of the five layers.
    widths = (3, 128, 256, 256, 256)
    expected = {
        "generator": 11_378_179,
        "discriminator": 2_764_737,
        "projector": sum((width + 1) * 256 + 257 * 256 for width in widths),
    }
    assert {name: network.count_params() for name, network in networks.items()} == expected
    encode = losses.with_activations(networks["generator"], Cut().nce.layers)
    sizes = [tuple(x.shape[1:]) for x in encode(tf.zeros([1, 32, 32, 3]))]
    assert sizes == [(38, 38, 3), (16, 16, 128), (8, 8, 256), (8, 8, 256), (8, 8, 256)]
    # Xavier's deviation, gain 0.02.
    for name, layer, fans in (
        ("generator", "block_5_conv_1", 9 * (256 + 256)),
        ("discriminator", "conv_3", 16 * (256 + 512)),
        ("projector", "projected_1", 256 + 256),
    ):
        kernel = networks[name].get_layer(layer).kernel.numpy()
        np.testing.assert_allclose(kernel.std(), 0.02 * np.sqrt(2 / fans), rtol=0.03)
    assert np.any(kernel != networks["projector"].get_layer("projected_2").kernel.numpy())


def test_it_learns_the_colours_of_the_targets_and_keeps_the_structure(make_trainer, noise_pairs):
    """Blue inputs and red targets, of different examples."""
    blue, red = tf.constant([-0.6, -0.2, 0.5]), tf.constant([0.5, -0.2, -0.6])

    class Colours(noise_pairs):
        def example(self, index):
            seed = tf.stack([tf.cast(index, tf.int32), 5])
            grey = tf.image.resize(
                tf.random.stateless_uniform([2, 6, 6, 1], [seed[0], 5], -0.4, 0.4), [SIZE] * 2
            )
            return {"input": grey[0] + blue, "target": grey[1] + red, "id": index}

    fast = Adam(learning_rate=3e-3)
    nce = tiny(patches=64, width=32)
    task = TinyCut(nce=nce, generator_optimizer=fast, discriminator_optimizer=fast)
    data = Colours(size=SIZE, train_examples=64)
    trainer = make_trainer(task, data, total_examples=1)

    values, _ = train(trainer, plans_of(4, None, 1, 250))
    names = [name for name in trainer.loop._metric_names[0] if name.startswith("loss/")]
    for name in ("nce", "nce_identity"):
        course = values[:, names.index(f"loss/generator/{name}")]
        assert course[-10:].mean() < 0.5 * course[:5].mean()
    [batch] = data.evaluation("val", batch=5)
    made = task.translate(trainer.state.networks, batch).numpy()
    # The inputs' mean is 1.1 away from the targets' in red and blue.
    np.testing.assert_allclose(made.mean((0, 1, 2)), red, rtol=0, atol=0.35)
    for output, source in zip(made.mean(-1), batch["input"].numpy().mean(-1), strict=True):
        assert np.corrcoef(output.ravel(), source.ravel())[0, 1] > 0.9


def test_gin_files_have_the_published_settings():
    loaded = {}
    all_lengths = {"cut": ("50%", "50%", "400ep", "50%"), "fastcut": ("75%", "25%", "200ep", "75%")}
    for name, lengths in all_lengths.items():
        experiment, _ = loader.load_experiment(gin_files=[f"gin/{name}.gin"])
        task = loaded[name] = experiment.task
        generator = {"filters": 64, "norm": "instance", "dropout": False}
        generator["inference_norm"] = "batch_statistics"
        assert (task.generator, task._build_generator.keywords) == ("resnet_9blocks", generator)
        assert task.nce == PatchNce() and (task.nce.patches, task.nce.temperature) == (256, 0.07)
        settings = {
            "filters": 64,
            "norm": "instance",
            "gan_loss": "lsgan",
            "regularisation": Regularisation(),
        }
        assert task.discriminator == DomainDiscriminator(network="discriminator", **settings)
        for optimizer in task.optimizers.values():
            assert (optimizer.learning_rate, optimizer.beta1, optimizer.beta2) == (2e-4, 0.5, 0.999)
            assert optimizer.schedule == LinearDecay(constant=lengths[0], decay=lengths[1])
        assert (experiment.batch_schedule, experiment.total_examples) == (1, lengths[2])
        data = experiment.data
        assert (type(data).__name__, data.load_size, data.crop_size) == ("UnpairedImages", 286, 256)
        # The authors' code stops to crop at random when the learning rate begins to fall.
        assert data.random_crop_epochs == lengths[3]
    cut, fast = loaded["cut"], loaded["fastcut"]
    assert (cut.nce_weight, cut.nce_identity, cut.flip_equivariance) == (1, True, False)
    assert (fast.nce_weight, fast.nce_identity, fast.flip_equivariance) == (10, False, True)


@dataclasses.dataclass(frozen=True)
class Described:
    """What an experiment asks of its data."""

    random_crop_epochs: int | str | None
    train_examples: int = 10
    is_paired: bool = False
    colour_space: str = "rgb"


@pytest.mark.parametrize(
    ("total", "given", "epochs"),
    [
        ("400ep", "50%", 200),
        ("600ep", "50%", 300),  # a longer run crops longer, as its decay begins later
        (50, "50%", 3),  # 2.5: the third epoch is not broken off
        ("200ep", "75%", 150),
        ("400ep", 200, 200),
        ("400ep", None, None),
    ],
)
def test_random_crops_end_with_a_part_of_the_run(total, given, epochs):
    experiment, _ = loader.load_experiment(gin_files=["gin/cut.gin"])
    experiment = dataclasses.replace(experiment, total_examples=total, data=Described(given))
    assert experiment.with_data_lengths().data.random_crop_epochs == epochs


def test_a_part_of_no_run_is_refused(synthetic_datasets):
    data = PairedImages(
        dataset="synthetic_facades", data_dir=synthetic_datasets, crop_size=32, random_crop_epochs="50%"
    )
    with pytest.raises(DataError, match="'50%': is a part of a run"):
        data.batches(position_examples=0, global_batch=1)


def test_settings_that_cannot_work_are_refused():
    def networks(size=32, channels=(3, 3), **settings):
        specs = (tf.TensorSpec([size, size, c], tf.float32) for c in channels)
        task = Cut(generator_filters=2, discriminator_filters=2, **settings)
        return task.networks(dict(zip(SIDES, specs, strict=True)))

    with pytest.raises(ConfigurationError, match="inputs have 1 channels and targets 3; prepare both alike"):
        networks(channels=(1, 3))
    with pytest.raises(
        ConfigurationError, match="generator: has no layer 'first_pad' to compare; choose among"
    ):
        networks(size=64, generator="unet_64")
    with pytest.raises(ConfigurationError, match="of 16x16 pixels .* at least 24"):
        networks(size=16)
    with pytest.raises(ConfigurationError, match="'ls': unknown; use one of bce, lsgan"):
        Cut(gan_loss="ls")
    for setting in ({"layers": ()}, {"patches": 1}, {"width": 0}, {"temperature": 0.0}):
        with pytest.raises(ConfigurationError, match="must name a layer, .* temperature = .* above 0"):
            PatchNce(**setting)
