"""Recomputation in the backward pass: the same training, less memory, every variable moved once."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.gin_config.loader import ROOT
from engine.inner_loop import loss_scale
from engine.inner_loop.recomputation import RecomputedNetwork
from engine.inner_loop.recompute_plan import choose_cuts, layer_graph, plan_segments
from engine.optimizers import Sgd
from engine.task import gradient_norm
from models.networks.dropout import Dropout
from models.networks.layers import Conv, image_input
from models.networks.norms import BatchNorm
from models.networks.spectral_norm import SpectralNorm
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.small_cyclegan_task import SmallCycleGan

SETTINGS = {"total_examples": 1, "precision": "float64"}


@pytest.mark.parametrize("replicas, largest", [(1, 2), (2, None)])
def test_training_is_the_same(make_trainer, noise_pairs, small_pix2pix, monkeypatch, replicas, largest):
    """Batch norm over uneven replicas, dropout, micro-batches; no all-reduce is added."""
    reduces, context = [], tf.distribute.ReplicaContext
    all_reduce = context.all_reduce
    monkeypatch.setattr(
        context, "all_reduce", lambda self, *args, **kw: reduces.append(1) or all_reduce(self, *args, **kw)
    )
    counts, results = [], []
    for recompute in (False, True):
        reduces.clear()
        trainer = make_trainer(
            small_pix2pix(norm="batch", dropout=True),
            noise_pairs(size=16),
            recompute=recompute,
            cpu_replicas=replicas,
            **SETTINGS,
        )
        results.append(train(trainer, plans_of(5, largest, replicas, steps=3)))
        counts.append(len(reduces))
    plain, recomputed = results
    assert np.ptp(plain[0][:, 0]) > 1e-3  # it does train
    assert_same(recomputed, plain)
    # On each of two replicas: three passes through one norm, forward and backward, and two phases.
    assert counts[0] == counts[1] == (replicas > 1) * replicas * (2 * 3 + 2)


def test_phases_that_differentiate_one_forward_pass(make_trainer, noise_pairs):
    """CycleGAN: each generator twice in a pass; the discriminators later, on pooled fakes."""
    plain, recomputed = (
        train(
            make_trainer(SmallCycleGan(), noise_pairs(size=16), recompute=recompute, **SETTINGS),
            plans_of(2, None, 1, steps=3),
        )
        for recompute in (False, True)
    )
    assert_same(recomputed, plain)


@pytest.fixture
def after_steps(make_trainer, noise_pairs, small_pix2pix):
    """Function: all variables before and after steps on two replicas, of 3 and 2 rows."""

    def after_steps(*, steps, **settings):
        # A gradient of nothing but rounding moves no weight by a whole learning rate, as Adam's would.
        plain_sgd = Sgd(learning_rate=0.1, momentum=0.0)
        task = small_pix2pix(
            norm="batch", dropout=True, generator_optimizer=plain_sgd, discriminator_optimizer=plain_sgd
        )
        trainer = make_trainer(task, noise_pairs(size=16), cpu_replicas=2, total_examples=1, **settings)
        _, variables = train(trainer, plans_of(5, None, 2, steps=steps))
        return trainer.initial, variables

    return after_steps


@pytest.mark.parametrize(("precision", "bits"), [("bfloat16", 7), ("float16", 10)])
def test_a_step_in_fewer_bits_is_the_same(after_steps, precision, bits, monkeypatch):
    """float16 with its loss scale."""
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**9)  # with 2**15 the step overflows
    (initial, plain), (_, recomputed) = (
        after_steps(steps=1, precision=precision, recompute=recompute) for recompute in (False, True)
    )
    # TensorFlow may choose other kernels where no activation is kept, so a number may be rounded at another
    # place: by one unit of its last bit. Another dropout mask or weight changes gradients altogether.
    moved = 0
    for name, value in plain.items():
        move = np.abs(value - initial[name]).max()
        np.testing.assert_allclose(recomputed[name], value, rtol=0, atol=2.0**-bits * move, err_msg=name)
        moved += name.startswith("network/") and move > 0
    assert moved == 16  # weights, biases, scales, and both statistics of two norms
    assert not any(value for name, value in plain.items() if name.endswith("/overflows"))


def test_a_step_that_overflows_moves_no_statistics(after_steps, monkeypatch):
    """What segments have assigned in the forward pass is undone."""
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**60)
    initial, variables = after_steps(steps=2, precision="float16", recompute=True)
    assert [variables[f"loss_scale/{phase}/overflows"] for phase in ("generator", "discriminator")] == [2, 2]
    assert len([name for name in initial if "moving_" in name]) == 4
    for name, value in initial.items():
        if name.startswith("network/"):
            np.testing.assert_array_equal(variables[name], value, err_msg=name)


def network():
    """A critic with all that a second computation could get wrong, a skip and a model inside."""
    image = image_input(3)
    x = SpectralNorm(Conv(4, 3, padding=1, name="a"))(image)
    skip = x = keras.layers.LeakyReLU(0.2)(x)
    x = BatchNorm()(x)
    inner = keras.Input((None, None, 4))
    x = keras.Model(inner, keras.layers.LeakyReLU(0.2)(SpectralNorm(Conv(4, 3, padding=1))(inner)))(x)
    x = Dropout(0.5)(x)
    x = keras.layers.Activation("tanh")(x)
    x = keras.ops.multiply(x, keras.layers.Conv2D(4, 1, bias_initializer="ones")(skip))
    return keras.Model(image, Conv(1, 3, padding=1, name="out")(keras.layers.Add()([x, skip])))


def test_second_derivatives_spectral_vectors_and_weights_updated_since():
    set_precision("float64")
    keras.utils.set_random_seed(1)
    model = network()
    start = [v.numpy() for v in model.variables]
    images = tf.random.stateless_normal([2, 8, 8, 3], [1, 2], dtype=tf.float64)
    graph = layer_graph(model)
    assert len(plan_segments(graph, [images])) > 1
    assert not any(call.node.operation is layer for call in graph.calls for layer in model.layers[4:5])

    @tf.function(autograph=False)
    def gradients(net):
        with tf.GradientTape() as tape:
            penalty = gradient_norm(lambda x: net(x, training=True), images)
            loss = tf.reduce_sum(penalty**2) + tf.reduce_sum(net(images, training=True) ** 2)
        for variable in model.trainable_variables:  # an update before the backward pass
            variable.assign(variable + 1.0)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    results = []
    for net in (model, RecomputedNetwork(model)):
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)
        results.append(([g.numpy() for g in gradients(net)], [v.numpy() for v in model.variables]))
    (plain, plain_variables), (recomputed, variables) = results
    for one, other in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-8)
    for one, other, before in zip(plain_variables, variables, start, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12)
        assert (one != before).any()  # seeds, statistics and spectral vectors move, each as often


def test_cuts_need_the_least_memory():
    """Against all possible cuts of random graphs."""

    def peak(sizes, last_uses, cuts):
        ends = list(zip([0, *cuts], [*cuts, len(sizes)], strict=True))
        crossing = sum(s for i, s in enumerate(sizes) if any(i < cut <= last_uses[i] for cut in cuts))
        return crossing + max(sum(sizes[start:end]) for start, end in ends)

    assert len(choose_cuts([1] * 16, [*range(1, 16), 15])) == 3  # a chain: sqrt(16) segments
    assert choose_cuts([5.0], [0]) == [] and choose_cuts([], []) == []
    random = np.random.default_rng(3)
    total = least = 0
    for _ in range(20):
        sizes = random.integers(1, 9, 9).tolist()
        last_uses = [int(random.integers(i, 9)) if random.random() < 0.3 else min(i + 1, 8) for i in range(9)]
        total += peak(sizes, last_uses, choose_cuts(sizes, last_uses))
        subsets = itertools.chain.from_iterable(itertools.combinations(range(1, 9), n) for n in range(9))
        least += min(peak(sizes, last_uses, list(cuts)) for cuts in subsets)
    assert least <= total <= 1.05 * least  # only some sizes of the largest segment are tried


PEAKS = """
import keras, tensorflow as tf
from engine.distribution.host_memory import peak_resident_bytes, reset_peak_resident, resident_bytes
from engine.inner_loop.recomputation import RecomputedNetwork

image = x = keras.Input((128, 128, 8))
for _ in range(36):  # 2 x 4 MiB each with a batch of 8
    x = keras.layers.LeakyReLU(0.2)(keras.layers.Conv2D(8, 1)(x))
model = keras.Model(image, x)

def peak_mib(net):
    @tf.function(autograph=False)
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(net(images, training=True))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    images = tf.random.stateless_normal([8, 128, 128, 8], [1, 2])
    reset_peak_resident()
    resting = resident_bytes()
    step(images)
    return (peak_resident_bytes() - resting) / 2**20

# The second one may use memory that the first one has left, so the smaller one comes first.
print(peak_mib(RecomputedNetwork(model)), peak_mib(model))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a step is read from Linux's /proc")
def test_the_peak_falls():
    """In a process of its own: TensorFlow keeps memory, of other tests too, and would use it here."""
    done = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True, cwd=ROOT)
    recomputed, kept = map(float, done.stdout.split()[-2:])
    assert kept > 200  # of 288
    assert recomputed < 0.6 * kept
