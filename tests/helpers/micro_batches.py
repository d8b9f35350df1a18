"""Steps of one trainer in one piece and in several micro-batches, to be compared."""

import numpy as np

from engine.batching.batch_layout import BatchLayout
from engine.input_pipeline.distributed_batches import distributed_batches


def train(trainer, plans):
    """Losses [steps, terms] and all variables after one step of each plan, from the start.

    One trainer, and so one compiled loop, serves several calls.
    """
    if not hasattr(trainer, "initial"):
        trainer.initial = {name: v.numpy() for name, v in trainer.state.variables().items()}
    for name, variable in trainer.state.variables().items():
        variable.assign(trainer.initial[name])
    losses, examples, iterators = [], 0, {}
    for step, plan in enumerate(plans):
        if plan not in iterators:
            iterators = {
                plan: distributed_batches(
                    trainer.devices, trainer.experiment.data, position_examples=examples, plan=plan
                )
            }
        result = trainer.loop.run(iterators[plan], num_steps=1, step=step, examples=examples, layout=plan)
        losses.append([value for name, value in result.metrics.items() if name.startswith("loss/")])
        examples += plan.global_batch
    return np.array(losses), {name: v.numpy() for name, v in trainer.state.variables().items()}


def assert_same(actual, expected, *, tolerance=1e-8, but=()):
    np.testing.assert_allclose(actual[0], expected[0], rtol=0, atol=tolerance)
    for name, value in expected[1].items():
        if name != "best" and not any(part in name for part in but):
            np.testing.assert_allclose(actual[1][name], value, rtol=0, atol=tolerance, err_msg=name)


def plans_of(batch, largest, replicas, steps=20, **settings):
    plan = BatchLayout(global_batch=batch, replicas=replicas, largest_micro_batch=largest, **settings)
    return [plan] * steps
