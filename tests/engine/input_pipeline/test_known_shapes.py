"""A run with one batch size is traced for it where its rows divide evenly; the results are the same."""

import dataclasses

import numpy as np
import pytest

from engine.input_pipeline.distributed_batches import distributed_batches


@pytest.fixture
def trained(make_trainer, noise_pairs, small_pix2pix):
    def train(replicas, schedule, *, is_only=None):
        trainer = make_trainer(
            small_pix2pix(),
            noise_pairs(size=12),
            total_examples=12,
            batch_schedule=schedule,
            cpu_replicas=replicas,
            precision="float64",
            save_every=0,
            sample_every=0,
        )
        if is_only is not None:
            (layout,) = trainer.plan.batches.values()
            layouts = {layout.global_batch: dataclasses.replace(layout, is_only=is_only)}
            trainer.plan = dataclasses.replace(trainer.plan, batches=layouts)
        return trainer

    return train


@pytest.mark.parametrize(
    ("replicas", "schedule", "rows"),
    [(1, 3, 3), (2, 4, 2), (3, 3, 1), (2, 3, None), (1, "0:2, 4:4", None), (2, "0:2, 4:4", None)],
)
def test_rows_are_known_only_if_they_never_change(replicas, schedule, rows, trained):
    trainer = trained(replicas, schedule)
    for layout in trainer.plan.batches.values():
        batches = distributed_batches(
            trainer.devices, trainer.experiment.data, position_examples=0, plan=layout
        )
        specs = [
            getattr(spec, "_value_specs", (spec,))
            for spec in (batches.element_spec[name] for name in ("input", "target"))
        ]
        assert {spec.shape[0] for each in specs for spec in each} == {rows}


@pytest.mark.parametrize("replicas", [1, 2])
def test_known_rows_change_no_result(replicas, trained):
    found = []
    for is_only in (True, False):
        trainer = trained(replicas, 4, is_only=is_only)
        trainer.run()
        assert trainer.loop.traces == replicas
        found.append({name: value.numpy() for name, value in trainer.state.variables().items()})
    known, unknown = found
    assert len(known) > 20
    # The bound of every comparison in float64: Adam makes steps of rounding where a gradient is 0, as for a
    # bias before a norm.
    for name, value in known.items():
        np.testing.assert_allclose(value, unknown[name], rtol=0, atol=1e-8 * max(1.0, np.abs(value).max()))
