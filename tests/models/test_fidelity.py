"""Distances from the target: every term against another implementation, and in training."""

import dataclasses

import keras
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import tensorflow as tf
from skimage.metrics import structural_similarity

from data import imaging
from engine.errors import ConfigurationError
from models import losses
from models.fidelity import Fidelity
from models.networks import generators
from models.networks.patchgan import ACTIVATIONS
from models.pix2pix import Pix2Pix
from models.super_resolution import SuperResolution
from models.supervised import Supervised
from tests.helpers.micro_batches import assert_same, plans_of, train

SETTINGS = {"total_examples": 1, "precision": "float64"}
TINY = {"generator_filters": 2, "discriminator_filters": 2, "norm": "instance"}
VGG_BEGINNING = losses.Perceptual(application="VGG16", weights=None, layers=("block1_conv1",))


@pytest.fixture(autouse=True)
def one_block(monkeypatch):
    """A generator that is traced quickly."""
    monkeypatch.setitem(generators.GENERATORS, "edsr_8blocks", generators._edsr(1))


def images(size=16, channels=3, seed=0):
    """Two similar batches: float64 [2, size, size, channels] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    real = rng.uniform(-0.9, 0.9, (2, size, size, channels))
    return np.clip(real + rng.normal(0, 0.2, real.shape), -1, 1), real


def by_blocks(difference, transform, size):
    """Mean of |transform(block)| over all blocks [size, size] and values of each image."""
    total = np.zeros(len(difference))
    for top in range(0, difference.shape[1], size):
        for left in range(0, difference.shape[2], size):
            block = difference[:, top : top + size, left : left + size]
            for b, c in np.ndindex(len(block), block.shape[-1]):
                total[b] += np.abs(transform(block[b, :, :, c])).sum()
    return total / difference[0].size


def hadamard(block):
    matrix = scipy.linalg.hadamard(len(block)) / np.sqrt(len(block))
    return matrix @ block @ matrix


def jpeg_weighted_dct(block):
    weights = 1 / imaging.JPEG_LUMINANCE
    return scipy.fft.dctn(block, norm="ortho") * weights / weights.mean()


def ssim_of(a, b):
    a, b = a + 1, b + 1  # both from 0
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "truncate": 3.4}
    return np.array(
        [
            structural_similarity(x, y, data_range=2, channel_axis=-1, **settings)
            for x, y in zip(a, b, strict=True)
        ]
    )


EXPECTED = {
    "l1": lambda a, b: np.abs(a - b).mean((1, 2, 3)),
    "l2": lambda a, b: ((a - b) ** 2).mean((1, 2, 3)),
    "charbonnier": lambda a, b: np.sqrt((a - b) ** 2 + 1e-6).mean((1, 2, 3)),
    "ssim": lambda a, b: 1 - ssim_of(a, b),
    "ms_ssim": lambda a, b: 1 - tf.image.ssim_multiscale(tf.constant(a + 1), tf.constant(b + 1), 2).numpy(),
    "satd_4x4": lambda a, b: by_blocks(a - b, hadamard, 4),
    "satd_8x8": lambda a, b: by_blocks(a - b, hadamard, 8),
    "dct": lambda a, b: by_blocks(a - b, jpeg_weighted_dct, 8),
    "total_variation": lambda a, b: (
        np.abs(np.diff(a, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(a, axis=2)).mean((1, 2, 3))
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_term_is_its_distance_times_its_weight(name):
    fake, real = images(size=176 if name == "ms_ssim" else 16)
    fidelity = Fidelity(**{name: 2.5})
    assert fidelity.frozen_networks(tf.TensorSpec(real.shape[1:], tf.float64)) == {}
    terms = fidelity.terms(tf.constant(fake), tf.constant(real))
    assert terms.keys() == {name}
    tolerance = 1e-3 if name == "ms_ssim" else 1e-9  # TensorFlow's own computes in float32, near 1
    np.testing.assert_allclose(terms[name], 2.5 * EXPECTED[name](fake, real), rtol=tolerance)


def test_every_weight_is_tried_and_none_is_set_by_itself():
    weights = {field.name for field in dataclasses.fields(Fidelity)} - {"domain", "perceptual_network"}
    assert weights == {*EXPECTED, "perceptual"}
    fake, real = map(tf.constant, images())
    assert Fidelity().weights == Fidelity().terms(fake, real) == {}


def test_distances_in_another_colour_space():
    fake, real = images()
    kr, kb = 0.2126, 0.0722  # BT.709

    def ycbcr(rgb):  # chroma as wide as luma, both in [-1, 1]
        luma = kr * rgb[..., 0] + (1 - kr - kb) * rgb[..., 1] + kb * rgb[..., 2]
        return np.stack(
            [luma, (rgb[..., 2] - luma) / (2 * (1 - kb)), (rgb[..., 0] - luma) / (2 * (1 - kr))], -1
        )

    terms = Fidelity(l1=1.0, satd_8x8=3.0, domain="ycbcr_bt709_full").terms(
        tf.constant(fake), tf.constant(real)
    )
    a, b = ycbcr(fake), ycbcr(real)
    np.testing.assert_allclose(terms["l1"], EXPECTED["l1"](a, b), rtol=1e-9)
    np.testing.assert_allclose(terms["satd_8x8"], 3 * EXPECTED["satd_8x8"](a, b), rtol=1e-9)


def test_perceptual_distance_is_built_where_it_is_asked_for_and_kept_out_of_checkpoints(
    make_trainer, noise_pairs
):
    fidelity = Fidelity(perceptual=3.0, perceptual_network=VGG_BEGINNING)
    task = Supervised(generator="edsr_8blocks", generator_filters=2, norm="none", fidelity=fidelity)
    trainer = make_trainer(task, noise_pairs(size=16), total_examples=2, batch_schedule=2)
    assert not [name for name in trainer.state.variables() if "block1_conv1" in name]
    fake, real = (tf.constant(x, tf.float32) for x in images())
    frozen = trainer.state.frozen_networks
    distance = VGG_BEGINNING.distance(frozen["perceptual"], fake, real)
    terms = fidelity.terms(fake, real, frozen)
    np.testing.assert_allclose(terms["perceptual"], 3 * distance, rtol=1e-6)
    assert np.all(terms["perceptual"] > 0)
    np.testing.assert_array_equal(fidelity.terms(real, real, frozen)["perceptual"], 0)
    values, _ = train(trainer, plans_of(2, None, 1, steps=1))
    assert values.shape == (1, 2) and np.all(values > 0)


def spec(size, channels=3):
    return tf.TensorSpec([size, size, channels], tf.float32)


@pytest.mark.parametrize(
    ("settings", "target", "message"),
    [
        ({"l1": -1.0}, None, "Fidelity.l1 = -1.0: must be at least 0"),
        ({"domain": "hsv"}, None, "'hsv': unknown; use one of rgb, ycbcr_bt601_full"),
        (
            {"ssim": 1.0},
            spec(10),
            "ssim = 1.0: needs images of at least 11x11 pixels, .* have 10x10; raise CROP_SI",
        ),
        ({"ms_ssim": 1.0}, spec(160), "at least 161x161 pixels"),
        ({"total_variation": 1.0}, spec(1), "at least 2x2 pixels"),
        ({"l1": 1.0, "domain": "lab"}, spec(16, 1), "needs 3 channels, but targets have 1; use 'rgb'"),
        ({"perceptual": 1.0}, spec(32, 4), "1 channel or 3, but targets have 4"),
        (
            {"perceptual": 1.0, "perceptual_network": losses.Perceptual(weights=None)},
            spec(8),
            "8x8 pixels are too small for all",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, target, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        Fidelity(**settings).frozen_networks(target)
    assert "\n" not in str(caught.value)


def test_settings_of_tasks_that_cannot_work_are_refused():
    for task in (Supervised, Pix2Pix):
        with pytest.raises(ConfigurationError, match="l1_weight = 2.0 and Fidelity.l1 = 1.0: both weigh L1"):
            task(l1_weight=2.0, fidelity=Fidelity(l1=1.0))
        with pytest.raises(ConfigurationError, match=rf"{task.__name__}.ema_decay = 1.0: must lie in \(0, 1"):
            task(ema_decay=1.0)
    with pytest.raises(ConfigurationError, match="there is nothing to learn"):
        Supervised(l1_weight=0.0).networks({"input": spec(256), "target": spec(256)})
    with pytest.raises(ConfigurationError, match=r"top_k = 0.0: .*in \(0, 1\]"):
        Pix2Pix(top_k=0.0)
    for size, message in ((30, "no whole number of times"), (48, "the factor must be 1, 2, 4, 8")):
        with pytest.raises(ConfigurationError, match=message):
            SuperResolution(blocks=1, **TINY).networks({"input": spec(16), "target": spec(size)})
    with pytest.raises(ConfigurationError, match="Fidelity.ms_ssim"):
        Pix2Pix(generator="unet_64", fidelity=Fidelity(ms_ssim=1.0), **TINY).frozen_networks(
            {"input": spec(64), "target": spec(64)}
        )


@dataclasses.dataclass(frozen=True)
class SmallerInputs:
    """Training data whose inputs are half as large as its targets."""

    pairs: object

    def __getattr__(self, name):
        return getattr(self.pairs, name)

    @property
    def example_spec(self):
        whole = self.pairs.example_spec["target"]
        side = whole.shape[0] // 2
        return {"input": tf.TensorSpec([side, side, 3], tf.float32), "target": whole}

    def batches(self, **arguments):
        return self.pairs.batches(**arguments).map(
            lambda batch: batch | {"input": batch["input"][:, ::2, ::2]}
        )


TASKS = {
    "supervised": Supervised(
        generator="edsr_8blocks",
        generator_filters=2,
        norm="none",
        fidelity=Fidelity(ssim=1.0, satd_4x4=1.0, total_variation=0.1, domain="lab"),
        ema_decay=0.9,
    ),
    "super_resolution": SuperResolution(blocks=1, feature_matching_weight=10.0, **TINY),
}


@pytest.mark.parametrize(
    ("name", "largest"), [pytest.param("supervised", 2, marks=pytest.mark.soak), ("super_resolution", None)]
)
def test_replicas_and_micro_batches_change_nothing(make_trainer, noise_pairs, name, largest):
    task, data = TASKS[name], SmallerInputs(noise_pairs(size=32))
    data = data if name == "super_resolution" else data.pairs
    whole = train(make_trainer(task, data, **SETTINGS), plans_of(5, None, 1, steps=2))
    assert np.all(np.isfinite(whole[0])) and np.all(np.ptp(whole[0], axis=0) > 1e-8)
    two = make_trainer(task, data, cpu_replicas=2, **SETTINGS)
    assert_same(train(two, plans_of(5, largest, 2, steps=2)), whole)  # 3 and 2, or (2, 2), then (1, 0)


def test_the_generator_learns_from_the_best_fakes_and_from_activations(make_trainer, noise_pairs):
    """Losses of the first step on two replicas, computed with NumPy from the outputs of the networks."""
    settings = {"generator": "edsr_8blocks", "dropout": False, "feature_matching_weight": 10.0, "top_k": 0.5}
    still = dataclasses.replace(Pix2Pix().optimizers["generator"], learning_rate=0.0)
    task = Pix2Pix(**TINY, **settings, generator_optimizer=still, discriminator_optimizer=still)
    data = noise_pairs(size=32)
    trainer = make_trainer(task, data, cpu_replicas=2, **SETTINGS)
    values, _ = train(trainer, plans_of(3, None, 2, steps=1))
    names = [name for name in trainer.loop._metric_names[0] if name.startswith("loss/generator/")]
    results = dict(zip(names, values[0, -len(names) :], strict=True))
    assert names == [f"loss/generator/{name}" for name in ("gan", "feature_matching", "l1")]

    trained = trainer.state.networks
    batch = next(iter(data.batches(position_examples=0, global_batch=3)))
    given, real = (tf.cast(batch[side], tf.float64) for side in ("input", "target"))
    fake = trained["generator"](given, training=True)
    discriminator = trained["discriminator"]
    layers = [discriminator.get_layer(name).output for name in (*ACTIVATIONS, "logits")]
    inner = keras.Model(discriminator.inputs, layers)
    of_fake, of_real = ([x.numpy() for x in inner(tf.concat([given, x], -1))] for x in (fake, real))
    per_example = np.logaddexp(0, -of_fake[-1]).mean((1, 2, 3))
    best_two = np.argsort(of_fake[-1].mean((1, 2, 3)))[-2:]
    assert results["loss/generator/gan"] == pytest.approx(per_example[best_two].mean(), abs=1e-9)
    distances = [np.abs(a - b).mean() for a, b in zip(of_fake[:-1], of_real[:-1], strict=True)]
    assert results["loss/generator/feature_matching"] == pytest.approx(10 * np.mean(distances), abs=1e-9)


def test_a_discriminator_may_see_the_image_alone():
    example = {"input": spec(64, 1), "target": spec(64)}
    channels = {
        conditional: Pix2Pix(generator="unet_64", conditional=conditional, **TINY)
        .networks(example)["discriminator"]
        .input.shape[-1]
        for conditional in (True, False)
    }
    assert channels == {True: 4, False: 3}


def test_distances_of_rgb_are_not_taken_in_another_space():
    assert Supervised().colour_spaces is None
    for fidelity in (Fidelity(perceptual=1.0), Fidelity(l2=1.0, domain="lab")):
        assert Supervised(fidelity=fidelity).colour_spaces == ("rgb",)
