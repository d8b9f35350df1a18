"""Which phases are due in a step: the table that the compiled loop chooses from.

A pattern is a set of phases that are due together; each is traced once. There is one for each combination of
the phases' `every`, and one for the warm-up of the generators before `Experiment.adversarial_start`.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from engine.task import Phase


def warm_up_phases(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """The phases of a step before the adversarial start: those with a reconstruction loss, on it alone.

    They are due in every step: `every` counts updates of a discriminator, which has none yet.
    """
    return tuple(
        dataclasses.replace(phase, loss=phase.reconstruction, every=1)
        for phase in phases
        if phase.reconstruction is not None
    )


class DuePhases:
    """The phases that are due, by the position of a step.

    A step belongs to the warm-up if it starts before `adversarial_start`, also if it ends after it. This does
    not depend on replicas, micro-batches, or where a run was continued.

    Args:
      phases: of the task.
      adversarial_start: examples of the run before the adversarial phases join; 0 for no warm-up.

    Attributes:
      patterns: the different sets of phases that are due together.
      all_due: a step in which every phase is due, if it is after the warm-up.
      adversarial_start: as given.
    """

    def __init__(self, phases: tuple[Phase, ...], *, adversarial_start: int = 0):
        self.adversarial_start = adversarial_start
        self._period = math.lcm(*(phase.every for phase in phases))
        due = [tuple(p for p in phases if p.is_due(s)) for s in range(self._period)]
        self.patterns = list(dict.fromkeys(due))
        self.all_due = self._period - 1
        self._pattern_of_step = [self.patterns.index(pattern) for pattern in due]
        if adversarial_start:
            self.patterns.append(warm_up_phases(phases))

    def pattern_at(self, *, step: int, examples: int) -> int:
        """The index in `patterns` of a step.

        Args:
          step: steps done before it.
          examples: examples drawn before it.
        """
        if examples < self.adversarial_start:
            return len(self.patterns) - 1
        return self._pattern_of_step[step % self._period]

    def traced_pattern_at(self, *, step: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        """`pattern_at` in a graph: int64 scalars to an int32 scalar."""
        pattern = tf.gather(tf.constant(self._pattern_of_step), step % self._period)
        if not self.adversarial_start:
            return pattern
        return tf.where(examples < self.adversarial_start, len(self.patterns) - 1, pattern)
