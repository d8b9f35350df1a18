"""What warming up the generator before the discriminator joins brings: pix2pix on facades at 64x64.

    python tests/benchmarks/adversarial_start.py --facades=FOLDER --output=DIR

FOLDER holds the CMP facades (train, val, test). Label maps to photos, batch 4, each seed with and without
ADVERSARIAL_START, on the same examples. Prints the metrics of every run at its end, and val PSNR on the way.
A second call goes on where the first one stopped.
"""

from __future__ import annotations

import os

import data.quiet_tensorflow  # noqa: F401

# isort: split
from absl import app, flags

from data.prepare import prepare
from data.tfrecords.prepared_dataset import find_dataset
from engine.inference.restored_run import restore_run
from engine.storage.run_directory import read_rows
from engine.train import train

FACADES = flags.DEFINE_string("facades", None, "Folder of the CMP facades.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the runs.", required=True)
EXAMPLES = flags.DEFINE_integer("examples", 4000, "Length of a run.")
STARTS = flags.DEFINE_multi_integer("start", [0, 1000], "ADVERSARIAL_START of the runs.")
SEEDS = flags.DEFINE_integer("seeds", 2, "Number of seeds.")

METRICS = ("psnr_db", "ssim", "kid")


def main(argv: list[str]) -> None:
    """Trains, evaluates and prints."""
    del argv
    data_dir = os.path.join(OUTPUT.value, "datasets")
    if not find_dataset("facades", data_dir):
        prepare(layout="side_by_side", source=FACADES.value, name="facades", data_dir=data_dir)
    rows, curves = [], []
    for seed in range(SEEDS.value):
        for start in STARTS.value:
            workdir = os.path.join(OUTPUT.value, f"start{start}_seed{seed}")
            _train(workdir, data_dir, start=start, seed=seed)
            row = [f"start {start}, seed {seed}"]
            evaluator = restore_run(workdir).evaluator
            for split in ("val", "test"):
                found = evaluator.evaluate(split)
                measured = {**found.model, **found.distances}
                row += [f"{measured[name]:.4f}" for name in METRICS]
            rows.append(row)
            evaluations = read_rows(os.path.join(workdir, "eval.jsonl"))
            curves.append([row[0], *(f"{each['metric/psnr_db']:.2f}" for each in evaluations)])
    names = [f"{split} {name}" for split in ("val", "test") for name in METRICS]
    _print_table(["run", *names], rows)
    positions = [str(each["examples"]) for each in evaluations]
    _print_table(["val psnr_db at example", *positions], curves)


def _train(workdir: str, data_dir: str, *, start: int, seed: int) -> None:
    params = (
        f"DATA_DIR = {data_dir!r}",
        "DATASET = 'facades'",
        "DIRECTION = 'BtoA'",
        f"TOTAL_EXAMPLES = {EXAMPLES.value}",
        f"ADVERSARIAL_START = {start}",
        f"SEED = {seed}",
        "LOG_EVERY = 200",
        "SAMPLE_EVERY = 0",
        "EVALUATE_EVERY = 500",
        "pix2pix.Pix2Pix.generator_filters = 16",
        "pix2pix.Pix2Pix.discriminator_filters = 16",
    )
    train(gin_files=["gin/quickstart.gin"], gin_params=list(params), workdir=workdir)


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    app.run(main)
