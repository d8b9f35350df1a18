"""Images a second of the input pipeline beside PyTorch's and Keras's, and the time to reach a position.

    python tests/benchmarks/data_speed.py --images=FOLDER --torch_python=VENV/bin/python
    python tests/benchmarks/data_speed.py --dataset=NAME --data_dir=DIR

FOLDER holds side_by_side JPEG images of 512x256. Each is decoded, both halves are resized to 286x286 and cut
to the same random 256x256, mirrored half of the time, in batches of 16. Gantry reads with the settings of
`supply.Supply` in `SETTINGS`; a cache is filled before the clock starts. PyTorch (with Pillow, 2 workers)
runs in an environment of its own. Rounds alternate between the pipelines; medians and ratios are printed.

With --dataset, a prepared one, the seconds from opening a position to its first batch.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import tensorflow as tf
from absl import app, flags
from image_folders import ROOT

from data.pairs import PairedImages
from data.pipeline import record_reader
from data.prepare import prepare
from data.supply import Supply
from data.tfrecords import prepared_dataset

IMAGES = flags.DEFINE_string("images", None, "Folder of side_by_side images of 512x256.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "A Python with torch and pillow.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each.")
EXAMPLES = flags.DEFINE_integer("examples", 1600, "Examples a round.")
DATASET = flags.DEFINE_string("dataset", None, "A prepared data set, to measure positions instead.")
DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where it lies.")

BATCH = 16
SETTINGS = {
    "gantry": {},
    "gantry, memory": {"cache": "memory"},
    "gantry, fast": {"resizing": "fast"},
    "gantry, fast, memory": {"resizing": "fast", "cache": "memory"},
    "gantry, fast, disk": {"resizing": "fast", "cache": "disk"},
}


def images_per_sec(batches) -> float:
    """Examples a second of an endless stream of batches, after the first."""
    iterator = iter(batches)
    next(iterator)
    count = EXAMPLES.value // BATCH
    began = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return count * BATCH / (time.perf_counter() - began)


def keras_batches(folder):
    """What Keras offers: whole pictures, decoded and resized bilinearly in batches, then cut as here."""
    import keras

    pictures = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(286, 572), batch_size=BATCH, interpolation="bicubic", verbose=False
    )

    def cut(images):
        pair = tf.concat([images[:, :, :286], images[:, :, 286:]], axis=-1)
        pair = tf.image.random_flip_left_right(tf.image.random_crop(pair, [tf.shape(pair)[0], 256, 256, 6]))
        return pair / 127.5 - 1.0

    return pictures.repeat().map(cut, num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)


def torch_images_per_sec(folder) -> float:
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_loader.py")
    command = [TORCH_PYTHON.value, script, folder, str(EXAMPLES.value), str(BATCH)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare() -> None:
    with tempfile.TemporaryDirectory() as directory:
        prepare(layout="side_by_side", source=IMAGES.value, name="speed", data_dir=directory)
        rates = {name: [] for name in (*SETTINGS, "torch", "keras")}
        for _ in range(ROUNDS.value):
            for name, settings in SETTINGS.items():
                pairs = PairedImages(dataset="speed", data_dir=directory, supply=Supply(**settings))
                rates[name].append(images_per_sec(pairs.batches(position_examples=0, global_batch=BATCH)))
            rates["torch"].append(torch_images_per_sec(IMAGES.value))
            rates["keras"].append(images_per_sec(keras_batches(IMAGES.value)))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print("| pipeline | images/s (median) | rounds | times torch |\n|---|---|---|---|")
    for name, found in rates.items():
        rounds = ", ".join(f"{rate:.0f}" for rate in found)
        print(f"| {name} | {medians[name]:.0f} | {rounds} | {medians[name] / medians['torch']:.2f} |")


def reach_positions() -> None:
    pairs = PairedImages(dataset=DATASET.value, data_dir=DATA_DIR.value)
    examples = pairs.train_examples

    def sec_to_reach(position):
        began = time.perf_counter()
        next(iter(pairs.batches(position_examples=position, global_batch=BATCH)))
        return time.perf_counter() - began

    positions = [0, *(int(examples * part) for part in (0.1, 0.37, 0.5, 0.73, 0.999, 1.5, 7.77))]
    sec_to_reach(0)
    found = {position: [] for position in positions}
    for _ in range(ROUNDS.value):
        for position in positions:
            found[position].append(sec_to_reach(position))
    stored = prepared_dataset.open_dataset(DATASET.value, DATA_DIR.value).splits["train"]
    order = record_reader.example_order(records=stored, seed=0, window_bytes=pairs.supply.window_bytes)
    began = time.perf_counter()
    for _ in record_reader.stored_examples(stored).batch(order.window_examples).take(1):
        pass
    print(f"reading one shuffle window of {order.window_examples}: {time.perf_counter() - began:.2f} s")
    print("| position | sec (median) | over position 0 |\n|---|---|---|")
    for position, sec in found.items():
        median, first = statistics.median(sec), statistics.median(found[0])
        print(f"| {position} | {median:.2f} | {median / first:.2f} |")


def main(argv: Sequence[str]) -> None:
    if argv[1:] or not (IMAGES.value or DATASET.value):
        raise app.UsageError("give --images or --dataset")
    if IMAGES.value:
        compare()
    if DATASET.value:
        reach_positions()


if __name__ == "__main__":
    sys.path.insert(0, ROOT)
    app.run(main)
