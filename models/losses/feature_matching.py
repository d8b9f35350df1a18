"""Feature matching: a loss between the activations of a network."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from models.losses.pixel import l1


def with_activations(network: keras.Model, layers: Sequence[str]) -> keras.Model:
    """Builds a model that returns activations of a network and shares its weights.

    Args:
      network: a functional model.
      layers: names of its layers. Append the name of the last layer to get the logits in the same pass.

    Returns:
      A model whose outputs are a list, in the order of `layers`; for one layer the activation itself.

    Raises:
      ConfigurationError: the network has no layer of that name.
    """
    known = [layer.name for layer in network.layers]
    for name in layers:
        if name not in known:
            raise ConfigurationError(
                f"{network.name}: has no layer {name!r} to compare; choose among {', '.join(known)}"
            )
    model = keras.Model(network.input, [network.get_layer(name).output for name in layers])
    # A network that is recomputed in the backward pass stays one.
    return network.like(model) if hasattr(network, "like") else model


def feature_matching(
    fake: tf.Tensor | Sequence[tf.Tensor], real: tf.Tensor | Sequence[tf.Tensor]
) -> tf.Tensor:
    """Computes the mean over layers of the L1 distance between activations.

    Source: Wang et al., arXiv 1711.11585 (pix2pixHD), section 3.3. They sum over the layers (equation 4; the
    authors' code multiplies that sum by 4 / layers). So their weight of 10 is a weight of 40 here, whatever
    the number of layers.

    Args:
      fake: activations of several layers, each [B, ...]; see `with_activations`.
      real: those of the targets, for the same layers; no gradient flows through them.

    Returns:
      [B].
    """
    # Keras returns the only output of a model without a list.
    pairs = zip(tf.nest.flatten(fake), tf.nest.flatten(real), strict=True)
    distances = [l1(a, tf.stop_gradient(b)) for a, b in pairs]
    return tf.add_n(distances) / len(distances)
