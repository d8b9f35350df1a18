"""Whether CycleGAN's two batches of a network are faster together; prints seconds a step, by turns.

python -m tests.benchmarks.cyclegan_batching SIZE BATCH ROUNDS [GENERATOR] [FILTERS]

A step has two passes of each generator over pictures at hand (translation and identity) and two of each
discriminator (real and fake). Variants run one step each by turns, on made-up pictures.
"""

import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.experiment import Experiment
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from models import cyclegan
from models.discriminators import domain_discriminator
from tests.helpers.small_training import NoisePairs

# Networks whose two batches go through together.
VARIANTS = {
    "apart": (),
    "generators": ("input_to_target", "target_to_input"),
    "discriminators": ("input_discriminator", "target_discriminator"),
    "all": ("input_to_target", "target_to_input", "input_discriminator", "target_discriminator"),
}


def passing(together):
    """`models.networks.joint_pass.pass_both`, but in one pass for those networks only."""

    def pass_both(network, first, second):
        if network.name in together:
            return tf.split(network(tf.concat([first, second], 0), training=True), 2)
        return [network(first, training=True), network(second, training=True)]

    return pass_both


def main(size, batch, rounds, generator="resnet_9blocks", filters=64):
    size, batch, rounds, filters = map(int, (size, batch, rounds, filters))
    steps = {}
    plan = BatchLayout(global_batch=batch, replicas=1)
    settings = {"generator": generator, "generator_filters": filters, "discriminator_filters": filters}
    for name, together in VARIANTS.items():
        cyclegan.pass_both = domain_discriminator.pass_both = passing(
            together
        )  # until this variant is traced
        run = RunDirectory(tempfile.mkdtemp())
        experiment = Experiment(
            task=cyclegan.CycleGan(**settings),
            data=NoisePairs(size=size),
            total_examples=1,
            strategy="one_device",
        )
        trainer = Trainer(experiment, run)
        data = distributed_batches(trainer.devices, experiment.data, position_examples=0, plan=plan)

        def step(trainer=trainer, data=data):
            began = time.perf_counter()
            trainer.loop.run(data, num_steps=1, step=0, examples=0, layout=plan)
            return time.perf_counter() - began

        step()  # traces
        steps[name] = step
    sec = {name: [] for name in VARIANTS}
    for turn in range(rounds):
        names = list(VARIANTS)[:: 1 if turn % 2 else -1]
        for name in names:
            sec[name].append(steps[name]())
    apart = np.array(sec["apart"])
    for name, times in sec.items():
        ratio = np.median(np.array(times) / apart)
        print(f"{name:15} median {np.median(times):7.3f} s, {ratio:.3f} of apart, least {min(times):7.3f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
