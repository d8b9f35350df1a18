"""Training data read by servers: every example once an epoch, the same pixels."""

import collections
import socket

import pytest

from data.errors import DataError
from data.pairs import PairedImages
from data.supply import Supply
from engine.data_service import start


def drawn(data_dir, batches, **settings):
    """How often each (id, input as bytes) is among the first batches of 8, of 40 examples an epoch."""
    data = PairedImages(
        dataset="synthetic_facades",
        data_dir=data_dir,
        load_size=36,
        crop_size=32,
        train_fraction=0.1,
        supply=Supply(**settings),
    )
    return collections.Counter(
        (int(example_id), image.tobytes())
        for batch in data.batches(position_examples=0, global_batch=8).take(batches)
        for example_id, image in zip(batch["id"].numpy(), batch["input"].numpy(), strict=True)
    )


def test_two_workers_draw_what_one_process_draws_in_another_order(synthetic_datasets):
    service, servers = start(port=0, workers=2)
    assert len(servers) == 3
    served = drawn(synthetic_datasets, 10, service=service)
    plain = drawn(synthetic_datasets, 40)  # 8 epochs; workers may be some ahead of each other
    assert served.total() == 80
    assert served <= plain  # nothing more often than in the epochs it may come from
    assert len({example_id for example_id, _ in served}) == 40


def test_what_cannot_be_served_is_refused():
    with pytest.raises(DataError, match="workers = 0: must be at least 1"):
        start(port=0, workers=0)
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=f"port = {port}: cannot be used"):
            start(port=port)
