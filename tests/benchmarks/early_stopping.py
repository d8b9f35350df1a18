"""Shows that early stopping on val keeps a checkpoint that is about the best of the run on test.

    python tests/benchmarks/early_stopping.py --facades=FOLDER --output=DIR

FOLDER holds the CMP facades (train, val, test). A small U-Net learns to restore 10 blurred photos until it
overfits, and stops early on a smoothed val PSNR. Every checkpoint is then evaluated on test. The run goes on
with an endless patience, to see what it would have found later. Writes DIR/early_stopping.csv and prints the
figures. A second call goes on where the first one stopped.
"""

from __future__ import annotations

import csv
import os

import data.quiet_tensorflow  # noqa: F401

# isort: split
from absl import app, flags
from blurred_photos import prepare_blurred_photos

from engine.inference.restored_run import restore_run
from engine.storage import checkpoints
from engine.storage.run_directory import read_rows
from engine.train import train

FACADES = flags.DEFINE_string("facades", None, "Folder of the CMP facades.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the run and the results.", required=True)

GIN_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "early_stopping.gin")
BLUR_RADIUS = 4.0
"""Standard deviation in pixels of a photo of 128x128: so much is lost that the network has to invent."""

ENDLESS = "early_stopping.EarlyStopping.patience = '100000ep'"


def main(argv: list[str]) -> None:
    """Trains, evaluates and prints."""
    del argv
    data_dir = os.path.join(OUTPUT.value, "datasets")
    folder = os.path.join(OUTPUT.value, "photos")
    splits = ("train", "val", "test")
    prepare_blurred_photos(FACADES.value, folder, data_dir, splits=splits, blur_radius=BLUR_RADIUS)
    workdir = os.path.join(OUTPUT.value, "run")
    settings = {"gin_files": [GIN_FILE], "workdir": workdir}
    params = [f"DATA_DIR = {data_dir!r}"]
    stopped = train(gin_params=params, **settings)
    chosen = checkpoints.list_checkpoints(os.path.join(workdir, "best"))[0]
    whole = train(gin_params=[*params, ENDLESS], **settings)
    test = _psnr_of_checkpoints(workdir)
    val = {row["examples"]: row["metric/psnr_db"] for row in read_rows(os.path.join(workdir, "eval.jsonl"))}
    _write_csv(os.path.join(OUTPUT.value, "early_stopping.csv"), val, test)
    until_stop = {position: value for position, value in test.items() if position <= stopped.examples}
    print(stopped.stopped_early)
    for what, position in (
        ("chosen on val, early stopping", chosen),
        ("best on test up to the early end", max(until_stop, key=until_stop.__getitem__)),
        (f"best on test of all {whole.examples} examples", max(test, key=test.__getitem__)),
        ("at the early end", stopped.examples),
        ("at the end", whole.examples),
    ):
        print(f"{what}: example {position}, val {val[position]:.3f} dB, test {test[position]:.3f} dB")


def _psnr_of_checkpoints(workdir: str) -> dict[int, float]:
    """Position of each checkpoint -> its PSNR on test in dB."""
    trainer = restore_run(workdir)
    directory = trainer.run_directory.checkpoints
    psnr = {}
    for position in checkpoints.list_checkpoints(directory):
        checkpoints.restore(trainer.state, directory, position)
        psnr[position] = trainer.evaluator.evaluate("test").model["psnr_db"]
    return psnr


def _write_csv(path: str, val: dict[int, float], test: dict[int, float]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["examples", "val_psnr_db", "test_psnr_db"])
        writer.writerows([position, val[position], test[position]] for position in sorted(test))


if __name__ == "__main__":
    app.run(main)
