"""The image pool against the published one's answers, and what it keeps."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from models.discriminators.image_pool import ImagePool, exchange

GOLDEN = json.loads((Path(__file__).parents[2] / "goldens" / "image_pool.json").read_text())
SIZE = GOLDEN["pool_size"]


def golden_draws():
    """Chance and slot of every image; those that the golden did not draw would change the result."""
    draws, chances, slots = iter(GOLDEN["draws"]), [], []
    for number in range(np.size(GOLDEN["queries"])):
        chance, slot = 0.9, 0 if number < SIZE else -1  # while the pool fills, nothing is drawn
        if number >= SIZE:
            kind, chance = next(draws)
            assert kind == "uniform"
            if chance > 0.5:
                kind, slot = next(draws)
                assert kind == "randint"
        chances.append(chance)
        slots.append(slot if slot >= 0 else number % SIZE)
    assert next(draws, None) is None
    return np.array(chances), np.array(slots, np.int32)


def replayed(pieces, *, compiled):
    """What the pool returned and holds after the golden's images, in batches of these sizes."""
    images, stored = tf.Variable(tf.fill([SIZE, 2, 1, 1], -1.0)), tf.Variable(0)
    run = tf.function(exchange, autograph=False, reduce_retracing=True) if compiled else exchange
    fakes = np.ravel(GOLDEN["queries"]).astype("float32")[:, None, None, None] * np.ones([2, 1, 1], "f")
    chances, slots = golden_draws()
    returned, first = [], 0
    for size in pieces:
        rows = slice(first, first + size)
        returned.append(
            run(images, stored, tf.constant(fakes[rows]), chances=chances[rows], slots=slots[rows])
        )
        first += size
    assert first == len(fakes)
    returned = np.concatenate(returned)
    np.testing.assert_array_equal(returned[:, 0], returned[:, 1])  # whole images
    return returned[:, 0, 0, 0].astype(int).tolist(), images.numpy()[:, 0, 0, 0].tolist(), int(stored)


@pytest.mark.parametrize(
    ("pieces", "compiled"), [([2] * 20, True), ([1] * 40, False), ([3] * 13 + [1], True), ([40], True)]
)
def test_returns_what_the_published_pool_returns_for_any_batches(pieces, compiled):
    returned, held, stored = replayed(pieces, compiled=compiled)
    assert returned == np.ravel(GOLDEN["returned"]).tolist()
    # The pool does not store an image that it returns at once.
    pool = []
    for number, (chance, slot) in enumerate(zip(*golden_draws(), strict=True)):
        if len(pool) < SIZE:
            pool.append(number)
        elif chance > 0.5:
            pool[slot] = number
    assert held == pool and stored == SIZE


def test_xla_compiles_it_once():
    """XLA would compile an index in brackets anew for each of its values."""
    images, stored = tf.Variable(tf.zeros([3, 2, 1, 1])), tf.Variable(0)
    run = tf.function(exchange, autograph=False, jit_compile=True)
    secs = []
    for step in range(8):
        fakes, chances = tf.fill([2, 2, 1, 1], float(step)), tf.constant([0.2, 0.1 * step])
        began = time.monotonic()
        run(images, stored, fakes, chances=chances, slots=tf.constant([0, step % 3])).numpy()
        secs.append(time.monotonic() - began)
    assert int(stored) == 3 and images.numpy()[:, 0, 0, 0].tolist() == [6, 7, 1]
    assert np.median(secs[1:]) < 0.1 * secs[0]


def test_a_chance_of_exactly_one_half_does_not_swap():
    images, stored = tf.Variable([[[[1.0]]]]), tf.Variable(1)
    new = tf.constant([[[[2.0]]]])
    kept = exchange(images, stored, new, chances=tf.constant([0.5]), slots=tf.constant([0]))
    assert float(kept[0, 0, 0, 0]) == 2.0 and float(images[0, 0, 0, 0]) == 1.0


def test_a_pool_that_is_not_full_counts_its_images():
    images, stored = tf.Variable(tf.zeros([5, 1, 1, 1])), tf.Variable(0)
    fakes = tf.reshape(tf.range(1.0, 4.0), [3, 1, 1, 1])
    draws = {"chances": tf.constant([0.9] * 3), "slots": tf.constant([4] * 3)}
    np.testing.assert_array_equal(exchange(images, stored, fakes, **draws), fakes)
    assert images.numpy().ravel().tolist() == [1, 2, 3, 0, 0] and int(stored) == 3


def test_settings():
    assert ImagePool(name="pool", size=0).state([4, 4, 3]) == {}
    state = ImagePool(name="pool", size=6).state([4, 5, 3])
    assert state["pool_images"].shape == [6, 4, 5, 3] and not state["pool_images"].trainable
    with pytest.raises(ConfigurationError, match="pool: cannot hold -1 images; set 0"):
        ImagePool(name="pool", size=-1)
