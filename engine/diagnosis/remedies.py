"""What a step needs as planned, and with settings that save memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import keras

from engine.diagnosis.device_verdicts import Demand, Remedy
from engine.diagnosis.step_memory import accumulated_step_memory, whole_step_memory
from engine.diagnosis.step_trace import StepTrace, trace_step
from engine.distribution.precision import set_precision
from engine.experiment import Experiment
from engine.inner_loop.variable_groups import variable_name
from engine.parameter_groups import ParameterGroup


def demand(trace: StepTrace, *, micro_batch: int) -> Demand:
    """What a step needs by formula.

    Args:
      trace: of the step.
      micro_batch: examples on each device that the run plans at once.
    """
    return Demand(
        whole_bytes=whole_step_memory(trace, micro_batch=micro_batch).total,
        accumulated=accumulated_step_memory(trace, most=micro_batch),
    )


def remedies(trace: StepTrace, *, micro_batch: int) -> list[Remedy]:
    """The settings that save memory and that the experiment does not have yet, in order of preference.

    Each is traced when its demand is asked for, and once.

    Args:
      trace: of the step as planned.
      micro_batch: examples on each device that the run plans at once.
    """
    experiment = trace.experiment
    found = []

    def add(name: str, make: Callable[[], StepTrace]) -> None:
        found.append(
            Remedy(name=name, demand=functools.cache(lambda: demand(make(), micro_batch=micro_batch)))
        )

    has_float32 = experiment.precision == "float32"
    if has_float32:
        add("{half}", lambda: _in_bfloat16(trace))
    if not experiment.recompute:
        add("recompute", lambda: trace.with_recompute(True))
        if has_float32:
            add("{half} and recompute", lambda: _in_bfloat16(trace.with_recompute(True)))
    if frozen := _all_but_the_heads(trace):
        add("frozen layers (all but the last)", lambda: _built_anew(trace, parameter_groups=(frozen,)))
    return found


def _in_bfloat16(trace: StepTrace) -> StepTrace:
    """float16 takes as much memory."""
    return _built_anew(trace, precision="bfloat16")


def _built_anew(trace: StepTrace, **settings: object) -> StepTrace:
    experiment: Experiment = dataclasses.replace(trace.experiment, **settings)  # type: ignore[arg-type]
    try:
        built = trace_step(experiment, trace.plan)
        _ = built.whole, built.accumulated  # while the precision is set
        return built
    finally:
        set_precision(trace.experiment.precision)


def _all_but_the_heads(trace: StepTrace) -> ParameterGroup | None:
    """Freezes all variables but those of the last layer of each network; None if there are no others."""
    names = []
    for network, model in trace.state.networks.items():
        layers = [layer for layer in _leaves(model) if layer.trainable_weights]
        last = {id(weight) for layer in layers[-1:] for weight in layer.trainable_weights}
        names += [
            variable_name(network, weight) for weight in model.trainable_weights if id(weight) not in last
        ]
    return ParameterGroup(pattern=tuple(names), frozen=True) if names else None


def _leaves(model: keras.Model) -> list[keras.Layer]:
    leaves = []
    for layer in model.layers:
        leaves += _leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return leaves
