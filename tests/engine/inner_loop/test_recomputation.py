"""Recomputation in the backward pass: the same training, less memory, every variable moved once."""

import numpy as np
import pytest

from models.pix2pix import Pix2Pix
from tests.helpers.micro_batches import assert_same, plans_of, train

SETTINGS = {"total_examples": 1, "precision": "float64"}


def both(make_trainer, task, data, plans, **settings):
    """What `train` returns without and with recomputation."""
    return [
        train(make_trainer(task, data, recompute=recompute, **SETTINGS, **settings), plans)
        for recompute in (False, True)
    ]


def unet(**settings):
    return Pix2Pix(generator="unet_32", generator_filters=2, discriminator_filters=2, **settings)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("largest", [None, 2])
def test_batch_norm_dropout_and_skip_connections(make_trainer, noise_pairs, replicas, largest):
    plans = plans_of(5, largest, replicas, steps=3)
    plain, recomputed = both(
        make_trainer, unet(norm="batch", dropout=True), noise_pairs(size=32), plans, cpu_replicas=replicas
    )
    assert np.ptp(plain[0][:, 0]) > 0.001  # it does train
    assert_same(recomputed, plain)
