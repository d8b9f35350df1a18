"""Losses between the activations of a network: feature matching."""

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from models.losses.pixel import l1


def with_activations(network, layers):
    """The network's activations after the named layers, as a model that shares its weights.

    Its outputs are a list, in the order of `layers`; put the name of the last layer at the end to have the
    logits with them in one pass.

    Raises:
      ConfigurationError: it has no layer of that name.
    """
    known = [layer.name for layer in network.layers]
    for name in layers:
        if name not in known:
            raise ConfigurationError(
                f"{network.name} has no layer {name!r} to compare; choose among: {', '.join(known)}"
            )
    return keras.Model(network.inputs, [network.get_layer(name).output for name in layers])


def feature_matching(fake, real):
    """Mean over layers of the L1 distance between activations, for each example; `real` is a target.

    Source: Wang et al., arXiv 1711.11585 (pix2pixHD), section 3.3, where its weight is 10.

    Args:
      fake, real: lists of activations, each [B, ...], of the same layers; see `with_activations`.

    Returns:
      [B]; no gradient through `real`.
    """
    # Keras gives the only output of a model without its list.
    pairs = zip(tf.nest.flatten(fake), tf.nest.flatten(real), strict=True)
    distances = [l1(a, tf.stop_gradient(b)) for a, b in pairs]
    return tf.add_n(distances) / len(distances)
