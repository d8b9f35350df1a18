"""Peak memory of preparing and of training on a small and on a large data set of the same images.

    python tests/benchmarks/data_memory.py --images=FOLDER --output=DIR

FOLDER holds side_by_side images, such as the training folder of the CMP facades. Every program runs in a
process of its own; its peak resident memory is printed, with TensorFlow's import (about 540 MiB) in it.
"""

import os
from collections.abc import Sequence

from absl import app, flags
from image_folders import fill, peak_mib

IMAGES = flags.DEFINE_string("images", None, "Folder of side_by_side images.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for data sets and runs.", required=True)
SIZES_MB = flags.DEFINE_list("sizes_mb", ["100", "2000"], "Sizes of the data sets.")
STEPS = flags.DEFINE_integer("steps", 500, "Steps of training, of one example each.")


def main(argv: Sequence[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f"{argv[1]!r}: unexpected argument")
    print("| data set | examples | preparing (MiB) | training (MiB) |\n|---|---|---|---|")
    for size in SIZES_MB.value:
        folder, name = os.path.join(OUTPUT.value, f"images_{size}"), f"repeated_{size}"
        examples = fill(os.path.join(folder, "train"), IMAGES.value, int(size) * 10**6)
        data_dir, workdir = (os.path.join(OUTPUT.value, part) for part in ("datasets", f"run_{size}"))
        prepared = peak_mib(
            *("-m", "data.prepare", "--layout=side_by_side", f"--source={folder}", f"--name={name}"),
            *(f"--data_dir={data_dir}", "--overwrite"),
        )
        settings = {"DATASET": name, "DATA_DIR": data_dir, "BATCH_SCHEDULE": 1, "TOTAL_EXAMPLES": STEPS.value}
        settings |= {
            "LOAD_SIZE": 72,
            "CROP_SIZE": 64,
            "SAMPLE_EVERY": 0,
            "SAVE_EVERY": 0,
            "EVALUATE_EVERY": 0,
        }
        trained = peak_mib(
            *("-m", "engine.train", "--gin_file=gin/quickstart.gin", f"--workdir={workdir}"),
            *(f"--gin_param={name} = {value!r}" for name, value in settings.items()),
        )
        print(f"| {size} MB | {examples} | {prepared:.0f} | {trained:.0f} |", flush=True)


if __name__ == "__main__":
    app.run(main)
