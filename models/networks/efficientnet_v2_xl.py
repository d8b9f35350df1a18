"""EfficientNetV2-XL, which `keras.applications` lacks, of the blocks of Keras's EfficientNetV2.

Source: Tan and Le 2021, arXiv 2104.00298; the configuration v2_xl_block of the authors' code
(google/automl, efficientnetv2/effnetv2_configs.py).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

# The function behind EfficientNetV2S, M and L, which takes any configuration.
from keras.src.applications.efficientnet_v2 import EfficientNetV2

PARAMETERS = 206_838_808
"""Trainable parameters without the top; with the top of 1000 classes 208,119,808."""

_RECURSION_LIMIT = 20_000


class Stage(NamedTuple):
    """One row of the configuration: blocks of one kind.

    Attributes:
      repeats: number of blocks.
      strides: of the first one.
      expansion: channels inside a block / channels of its input.
      inputs: channels.
      outputs: channels.
      squeeze: units of squeeze-and-excitation / channels of the input; 0 for none.
      is_fused: whether expansion and depthwise convolution are one convolution.
    """

    repeats: int
    strides: int
    expansion: int
    inputs: int
    outputs: int
    squeeze: float
    is_fused: bool


STAGES = (
    Stage(4, 1, 1, 32, 32, 0.0, True),
    Stage(8, 2, 4, 32, 64, 0.0, True),
    Stage(8, 2, 4, 64, 96, 0.0, True),
    Stage(16, 2, 4, 96, 192, 0.25, False),
    Stage(24, 1, 6, 192, 256, 0.25, False),
    Stage(32, 2, 6, 256, 512, 0.25, False),
    Stage(8, 1, 6, 512, 640, 0.25, False),
)


def efficientnet_v2_xl(*, stages: Sequence[Stage] = STAGES, **arguments: Any) -> keras.Model:
    """Builds the network, as the functions of `keras.applications` do.

    Args:
      stages: of the configuration.
      **arguments: those of `keras.applications.EfficientNetV2L`.
    """
    blocks = [
        {
            "kernel_size": 3,
            "num_repeat": stage.repeats,
            "input_filters": stage.inputs,
            "output_filters": stage.outputs,
            "expand_ratio": stage.expansion,
            "se_ratio": stage.squeeze,
            "strides": stage.strides,
            "conv_type": int(stage.is_fused),
        }
        for stage in stages
    ]
    with deep_networks():
        return EfficientNetV2(1.0, 1.0, 512, blocks_args=blocks, name="efficientnetv2-xl", **arguments)


@contextlib.contextmanager
def deep_networks() -> Iterator[None]:
    """Lets Keras build and copy networks of more than a thousand layers: it walks them recursively."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
