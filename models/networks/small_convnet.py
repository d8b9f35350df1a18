"""A small convolutional network, for labels of small images and for tests."""

from __future__ import annotations

import keras

from models.networks.layers import Conv, image_input
from models.networks.norms import GlobalBatchNormalization

_MOST_GROWTH = 8  # of the channels


def small_convnet(*, channels: int, filters: int, stages: int) -> keras.Model:
    """Builds the network: [B, H, W, channels] -> [B, H / 2^stages, W / 2^stages, C], rounded up.

    Each stage is a 3x3 convolution with stride 2, batch norm over the global batch, and ReLU.

    Args:
      channels: of the images.
      filters: of the first stage; they double at each stage, up to 8 times.
      stages: number of stages.
    """
    x = image = image_input(channels)
    for stage in range(stages):
        width = filters * min(2**stage, _MOST_GROWTH)
        x = Conv(
            width,
            3,
            stride=2,
            padding=1,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"stage{stage + 1}_conv",
        )(x)
        x = GlobalBatchNormalization(momentum=0.9, name=f"stage{stage + 1}_norm")(x)
        x = keras.layers.ReLU(name=f"stage{stage + 1}_relu")(x)
    return keras.Model(image, x, name="backbone")
