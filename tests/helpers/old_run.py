"""A small run, and what the code that trained it makes of it: for later code to open, bit for bit.

Run it in a clone of the commit whose runs must still open; it calls the public functions only, so it works
there as it is:

  .venv/bin/python PATH/TO/tests/helpers/old_run.py OUTPUT
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

SAVED_AT, TOTAL = 24, 48
GIN_FILE = "gin/quickstart.gin"
DATA_DIR = "datasets"
PARAMS = (
    f"TOTAL_EXAMPLES = {TOTAL}",
    f"SAVE_EVERY = {SAVED_AT}",
    "SAMPLE_EVERY = 0",
    "EVALUATE_EVERY = 0",
    "LOG_EVERY = 1",
    "LOAD_SIZE = 36",
    "CROP_SIZE = 32",
    "BATCH_SCHEDULE = '0:2, 12:4, 36:6'",
    "LEARNING_RATE_RULE = 'linear'",
    "experiment.Experiment.measure_noise_scale = True",
    "pix2pix.Pix2Pix.generator = 'unet_32'",
    "pix2pix.Pix2Pix.generator_filters = 1",
    "pix2pix.Pix2Pix.discriminator_filters = 1",
    "pix2pix.Pix2Pix.ema_decay = 0.9",
)


def machine() -> str:
    """What the last bits of a float32 convolution depend on."""
    import tensorflow as tf

    processor = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = ", ".join(
            " ".join(sorted(value.split())) if key == "flags" else value.strip()
            for key, _, value in (line.replace("\t", "").partition(":") for line in lines)
            if key in ("model name", "flags")
        )
    digest = hashlib.sha256(processor.encode()).hexdigest()[:16]
    options = {name: value for name, value in sorted(os.environ.items()) if "ONEDNN" in name}
    return f"TensorFlow {tf.__version__}, {platform.machine()}, {os.cpu_count()} cores, {digest}, {options}"


def checkpoint_values(directory: Path) -> dict:
    """Every variable of a checkpoint by its name, as a NumPy array."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(directory / "state"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def digests(values: dict) -> dict[str, str]:
    """Dtype, shape and the first digits of the SHA-256 of each value."""
    return {
        name: f"{value.dtype} {list(value.shape)} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
        for name, value in sorted(values.items())
    }


def networks_only(values: dict) -> dict:
    """The weights of the networks, without what the optimizer keeps beside them."""
    return {name: value for name, value in values.items() if name.startswith("network/")}


def write_input(path: Path) -> None:
    """A picture to translate."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0:32, 0:32]
    picture = np.stack([8 * rows, 8 * columns, 4 * (rows + columns)], axis=-1)
    Image.fromarray(picture.astype(np.uint8)).save(path)


def make(output: Path) -> None:
    import numpy as np

    from engine.evaluate import evaluate
    from engine.train import train
    from engine.translate import translate

    os.chdir(tempfile.mkdtemp())
    train(gin_files=[GIN_FILE], gin_params=[*PARAMS, f"DATA_DIR = {DATA_DIR!r}"], workdir="run")
    final = checkpoint_values(Path(f"run/checkpoints/{TOTAL:08d}"))
    for name in ("best", "samples", "tensorboard", f"checkpoints/{TOTAL:08d}"):
        shutil.rmtree(f"run/{name}", ignore_errors=True)
    for name in ("DONE", "eval.jsonl"):
        Path(f"run/{name}").unlink(missing_ok=True)
    output.mkdir(parents=True)
    shutil.copytree("run", output / "run")
    evaluate(workdir="run")
    row = json.loads(Path("run/eval.jsonl").read_text().splitlines()[-1])
    write_input(output / "input.png")
    translate(workdir="run", input=str(output / "input.png"), output="translated", raw=True)
    np.savez_compressed(
        output / "expected.npz", translated=np.load("translated/input.npy"), **networks_only(final)
    )
    expected = {"machine": machine(), "evaluation": row, "digests": digests(final)}
    (output / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
