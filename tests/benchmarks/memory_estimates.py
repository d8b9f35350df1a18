"""The doctor's estimate of memory beside what a process takes, each size in a process of its own, on a CPU.

python -m tests.benchmarks.memory_estimates [--cases=pix2pix:1,pix2pix:4,pix2pix:8,EfficientNetV2S:8]

A case is a gin file of the engine at 256x256, or an image classifier of keras.applications at 224x224 with
all weights trainable, and a batch. The step has one micro-batch and runs three times. "process" is what the
process holds without variables and tensors: TensorFlow, the traced graph, and the engine's allowance for
kernels (engine.diagnosis.cpu_process).

python -m tests.benchmarks.memory_estimates --xla [--recompute] --cases=pix2pix:1,pix2pix:4,pix2pix:8

compares the variables and tensors of the estimate with what XLA reports of the compiled step: arguments,
results and temporaries of the program.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import keras
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.diagnosis.cpu_process import process_bytes
from engine.diagnosis.step_memory import whole_step_memory
from engine.diagnosis.step_trace import trace_step
from engine.distribution.devices import make_devices
from engine.distribution.host_memory import peak_resident_bytes, reset_peak_resident, resident_bytes
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.memory.probe_process import xla_report_bytes
from engine.outer_loop.run_plan import plan_run
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from engine.task import Adam, Phase, Task
from tests.benchmarks.model_costs import OnePicture

CLASSES = 10


class Classifier(Task):
    """An image classifier of keras.applications, all of it trained; every picture is of one class."""

    def __init__(self, application):
        self.optimizers = {"classifier": Adam()}
        self._application = application

    def networks(self, example):
        build = getattr(keras.applications, self._application)
        body = build(
            include_top=False, weights=None, input_shape=tuple(example["input"].shape), pooling="avg"
        )
        scores = keras.layers.Dense(CLASSES, dtype="float32", name="predictions")(body.output)
        return {"classifier": keras.Model(body.input, scores, name="classifier")}

    def phases(self):
        def loss(step):
            scores = step.networks["classifier"](step.batch["input"], training=True)
            labels = tf.one_hot(tf.zeros(tf.shape(scores)[0], tf.int32), CLASSES)
            return {"cross_entropy": tf.nn.softmax_cross_entropy_with_logits(labels, scores)}

        return (Phase(name="classifier", loss=loss, updates=("classifier",), optimizer="classifier"),)

    def translate(self, networks, batch):
        raise NotImplementedError


def made_up_experiment(name, batch):
    """The experiment of a case over one made-up example."""
    is_application = hasattr(keras.applications, name)
    experiment, _ = loader.load_experiment(gin_files=[f"gin/{'pix2pix' if is_application else name}.gin"])
    size = 224 if is_application else 256
    spec = {role: tf.TensorSpec([size, size, 3], tf.float32) for role in ("input", "target")}
    return dataclasses.replace(
        experiment,
        task=Classifier(name) if is_application else experiment.task,
        data=OnePicture(stands_for=experiment.data, example_spec=spec),
        batch_schedule=batch,
    )


def measure(name, batch):
    """Bytes of one case by name: estimated and measured."""
    experiment = made_up_experiment(name, batch)
    devices = make_devices("one_device")
    plan = plan_run(experiment, replicas=1, largest_micro_batch=None, static_shapes=False)
    trace = trace_step(experiment, plan)
    built = resident_bytes()
    layout = BatchLayout(global_batch=batch, replicas=1)
    iterator = distributed_batches(devices, experiment.data, position_examples=0, plan=layout)
    reset_peak_resident()
    trace.loop.run(iterator, num_steps=3, step=0, examples=0, layout=layout)
    measured = peak_resident_bytes()
    found = whole_step_memory(trace, micro_batch=batch)
    return {
        "variables": found.state.total,
        "tensors": found.tensors.total,
        "process": process_bytes(trace.whole, built_bytes=built, state_bytes=found.state.total),
        "measured": measured,
    }


def measure_xla(name, batch, *, recompute, directory):
    """Bytes of one case: estimated, and as XLA reports them; XLA writes into `directory`."""
    experiment = dataclasses.replace(
        made_up_experiment(name, batch), strategy="one_device", recompute=recompute, jit_compile=True
    )
    trainer = Trainer(experiment, RunDirectory(directory))
    layout = trainer.plan.batches[batch]
    iterator = distributed_batches(trainer.devices, experiment.data, position_examples=0, plan=layout)
    trainer.loop.run(iterator, num_steps=1, step=0, examples=0, layout=layout)
    reported = xla_report_bytes(directory)
    found = whole_step_memory(trace_step(experiment, trainer.plan), micro_batch=batch)
    return {"variables": found.state.total, "tensors": found.tensors.total, "measured": reported}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", default="pix2pix:1,pix2pix:4,pix2pix:8,EfficientNetV2S:8,MobileNetV3Small:16,VGG16:4"
    )
    parser.add_argument("--case", help="measures one case in this process, for the other ones")
    parser.add_argument("--xla", action="store_true", help="compares with XLA's report, not with a process")
    parser.add_argument("--recompute", action="store_true", help="RECOMPUTE = True, with --xla")
    parser.add_argument("--directory", help="of --case with --xla: the one of XLA_FLAGS")
    arguments = parser.parse_args()
    if arguments.case:
        name, batch = arguments.case.split(":")
        if arguments.xla:
            found = measure_xla(
                name, int(batch), recompute=arguments.recompute, directory=arguments.directory
            )
        else:
            found = measure(name, int(batch))
        print(json.dumps(found))
        return
    parts = ["variables", "tensors"] if arguments.xla else ["variables", "tensors", "process"]
    print(f"| case | {' | '.join(parts)} | estimate | measured | estimate / measured |")
    print(f"|{'---|' * (len(parts) + 4)}")
    for case in arguments.cases.split(","):
        command = [sys.executable, "-m", "tests.benchmarks.memory_estimates", f"--case={case}"]
        with tempfile.TemporaryDirectory() as directory:
            environment = dict(os.environ)
            if arguments.xla:
                command += ["--xla", f"--directory={directory}"]
                command += ["--recompute"] if arguments.recompute else []
                environment["XLA_FLAGS"] = f"--xla_dump_to={directory} --xla_dump_hlo_as_text"
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
        found["estimate"] = sum(found[part] for part in parts)
        cells = [f"{found[name] / 2**20:,.0f} MiB" for name in (*parts, "estimate", "measured")]
        print(f"| {case} | {' | '.join(cells)} | {found['estimate'] / found['measured']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
