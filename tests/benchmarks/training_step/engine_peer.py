"""A peer of `compare`: the compiled step of this project, as `engine.train` runs it, on a constant batch.

python -m tests.benchmarks.training_step.engine_peer --gin_file=gin/pix2pix.gin --size=256 --batch=1
"""

import argparse
import dataclasses
import os
import tempfile

from engine.distribution.device_memory import peak_device_bytes
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from tests.benchmarks.model_costs import OnePicture, flop_of_step, made_up_spec
from tests.benchmarks.training_step.peer_protocol import serve


def main() -> None:
    """Serves steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gin_file", required=True)
    parser.add_argument("--gin_param", action="append", default=[])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=1, help="with TF_CONFIG: workers")
    parser.add_argument("--flop", action=argparse.BooleanOptionalAction, default=True, help="count FLOP")
    parser.add_argument("--steps", type=int, default=1, help="steps in one call of the compiled loop")
    options = parser.parse_args()
    experiment, _ = loader.load_experiment(gin_files=[options.gin_file], gin_params=options.gin_param)
    is_worker = "TF_CONFIG" in os.environ
    several = "multi_worker" if is_worker else "mirrored"
    experiment = dataclasses.replace(
        experiment,
        data=OnePicture(stands_for=experiment.data, example_spec=made_up_spec(experiment.data, options.size)),
        batch_schedule=options.batch,
        strategy="one_device" if options.replicas == 1 else several,
        cpu_replicas=1 if is_worker else options.replicas,
    )
    trainer = Trainer(experiment, RunDirectory(tempfile.mkdtemp()))
    layout = trainer.plan.batches[options.batch]
    batches = distributed_batches(trainer.devices, experiment.data, position_examples=0, plan=layout)
    counts = options.flop and options.replicas == 1
    names = trainer.devices.names
    serve(
        lambda: trainer.loop.run(batches, num_steps=options.steps, step=0, examples=0, layout=layout),
        flop_of_step=flop_of_step(trainer) * options.batch if counts else 0.0,
        peak_bytes=(lambda: peak_device_bytes(names)) if trainer.devices.gpus else None,
    )


if __name__ == "__main__":
    main()
