"""Which share of an evaluation the generator takes: a U-Net, all test facades, no training.

python tests/benchmarks/evaluation_speed.py --facades=FOLDER [--size=256] [--filters=64] [--rounds=3]

FOLDER holds train/, val/ and test/ with pictures of the facades side by side. Processor time of the whole
process counts, so other programs on the machine disturb little. A first evaluation traces everything and
fills the cache of the data set; it is start-up, and printed alone.
"""

import argparse
import os
import tempfile
import time

import tensorflow as tf

from data.pairs import PairedImages
from data.prepare import prepare
from engine.distribution.devices import make_devices
from engine.distribution.precision import set_precision
from engine.evaluation.baselines import BASELINES
from engine.evaluation.contact_sheet import Extremes
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.random_features import RandomFeatures
from engine.evaluation.split_batches import EVALUATION_BATCH_PER_REPLICA
from engine.evaluation.text_table import table
from engine.reporting.log_rows import interval_row
from models.pix2pix import Pix2Pix


def processor_sec(work):
    """Processor time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--facades", required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    set_precision("float32")
    with tempfile.TemporaryDirectory() as data_dir:
        prepare(layout="side_by_side", source=options.facades, name="facades", data_dir=data_dir)
        data = PairedImages(
            dataset="facades",
            data_dir=data_dir,
            direction="BtoA",
            load_size=options.size,
            crop_size=options.size,
        )
        task = Pix2Pix(generator=f"unet_{options.size}", generator_filters=options.filters)
        devices = make_devices("one_device", cpu_replicas=1)
        networks = task.networks(data.example_spec)
        evaluator = Evaluator(
            task=task, devices=devices, data=data, networks=networks, extractor=RandomFeatures()
        )

        def evaluate():
            result = evaluator.evaluate("test", baselines=BASELINES, extremes=Extremes())
            table(result, split="test")
            interval_row(result)

        @tf.function(autograph=False, reduce_retracing=True)
        def generate(inputs):
            return networks["generator"](inputs)

        batch = EVALUATION_BATCH_PER_REPLICA
        batches = [x["input"] for x in data.evaluation("test", batch=batch)]

        def translate():
            for inputs in batches:
                generate(inputs)

        def read():
            for _ in data.evaluation("test", batch=batch):
                pass

        print(
            f"{sum(len(x) for x in batches)} pictures of {options.size}x{options.size}, {os.cpu_count()} CPUs"
        )
        print(f"first evaluation: {processor_sec(evaluate):.2f} s")
        translate()
        for _ in range(options.rounds):
            generator, whole, reading = (processor_sec(work) for work in (translate, evaluate, read))
            share = 100 * generator / whole
            print(
                f"evaluation {whole:.2f} s, generator alone {generator:.2f} s ({share:.0f} %), reading alone "
                f"{reading:.2f} s"
            )


if __name__ == "__main__":
    main()
