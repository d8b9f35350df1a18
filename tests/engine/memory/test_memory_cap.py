"""A batch that does not fit into the memory planned for, through real measurements and a real run."""

import numpy as np
import pytest
import tensorflow as tf

import engine.train
from engine.gin_config import loader
from engine.memory import probe
from engine.storage.run_directory import RunDirectory, read_rows

BATCH = 32


@pytest.mark.soak
def test_a_batch_too_large_for_memory_trains_to_the_same_weights(synthetic_datasets, tmp_path):
    small = {
        "DATA_DIR": synthetic_datasets,
        "LOAD_SIZE": 144,
        "CROP_SIZE": 128,
        "pix2pix.Pix2Pix.generator_filters": 8,
        "pix2pix.Pix2Pix.discriminator_filters": 8,
        "PRECISION": "float64",
        "NORM": "instance",
        "DROPOUT": False,
        "BATCH_SCHEDULE": BATCH,
        "TOTAL_EXAMPLES": 20 * BATCH,
        "LOG_EVERY": 1,
        "EVALUATE_EVERY": 0,
        "SAVE_EVERY": 0,
    }
    params = [f"{name} = {value!r}" for name, value in small.items()]
    _, text = loader.load_experiment(gin_files=["gin/quickstart.gin"], gin_params=params)
    model = probe.measure(text, limit=BATCH).model
    budget_bytes = model.at(BATCH // 3)
    assert model.at(BATCH) > budget_bytes  # in one piece it does not fit

    def train(name, *more):
        workdir = str(tmp_path / name)
        engine.train.train(gin_files=["gin/quickstart.gin"], gin_params=[*params, *more], workdir=workdir)
        rows = read_rows(RunDirectory(workdir).train_log)
        reader = tf.train.load_checkpoint(f"{workdir}/checkpoints/{20 * BATCH:08d}/state")
        names = [n for n in reader.get_variable_to_shape_map() if "network" in n]
        return rows, {name: reader.get_tensor(name) for name in names}

    capped, weights = train(
        "capped", "LARGEST_MICRO_BATCH = 'auto'", f"experiment.Experiment.memory_bytes = {budget_bytes}"
    )
    assert capped[0]["accumulation"] > 1 and capped[0]["global_batch"] == BATCH
    whole, expected = train("whole")
    assert whole[0]["accumulation"] == 1
    losses = [
        [[value for name, value in row.items() if name.startswith("loss/")] for row in rows]
        for rows in (capped, whole)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-8)
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=1e-8, err_msg=name)
