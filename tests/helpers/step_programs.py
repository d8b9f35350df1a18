"""The programs that the engine gives to replicas for a step of a task, with padded rows."""

import dataclasses

import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from tests.helpers.lowering import Recorder
from tests.helpers.traced_steps import trace_steps


def programs_of_steps(task, data, *, replicas, platform, largest_micro_batch=None, **settings):
    """What the engine's compiled loop gives to `strategy.run`, for every pattern of phases that are due.

    `platform` is as for `Recorder`; the settings are those of `trace_steps`. Each replica has two rows.
    """
    strategy = Recorder(replicas, platform=platform)
    # One example less than there are rows: the last replica, or micro-batch, is padded.
    layout = BatchLayout(
        global_batch=2 * replicas - 1,
        replicas=replicas,
        largest_micro_batch=largest_micro_batch,
        static_shapes=True,
    )
    trace_steps(with_names(task), data, strategy=strategy, layout=layout, **settings)
    return strategy.programs


def with_names(task):
    """The task; the names of its operations, and of their gradients, have "forward" or the phase in them."""

    def named(name, fn):
        def in_scope(step):
            with tf.name_scope(name):
                return fn(step)

        return in_scope

    phases = [dataclasses.replace(p, loss=named(p.name, p.loss)) for p in task.phases()]
    task.phases, task.forward = lambda: tuple(phases), named("forward", task.forward)
    return task
