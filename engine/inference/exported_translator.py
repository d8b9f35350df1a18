"""Translating pictures with a network that was exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import tensorflow as tf

from data.roles import SIDE_MAP, SIDE_VECTOR
from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError
from engine.inference.batch_function import BatchFunction
from engine.inference.export_facts import IMAGE, OUTPUT, ExportFacts, read_facts
from engine.inference.exported_network import ExportedNetwork, find_network, load_network
from engine.inference.translator import Translator
from engine.pictures.side_inputs import SideMaps, parse_side_vector
from engine.task import LATENT_CODE


def translator_of_export(path: str, *, side_vector: str | None, side_map: str | None) -> Translator:
    """Loads an exported network; gantry.json beside it says how it takes pictures.

    Args:
      path: the folder of an export, or a SavedModel or .keras file in it. Without gantry.json, the network
        takes one picture in [-1, 1] and makes one.
      side_vector: side information for every picture, if the network takes a vector.
      side_map: folder with a map for each picture, if the network takes maps.

    Raises:
      ConfigurationError: the files or an argument cannot be used.
      data.errors.DataError: the maps cannot be used.
    """
    set_precision("float32")
    found = find_network(path)
    facts = read_facts(found)
    network = load_network(found, facts)
    vector = parse_side_vector(
        [name for name in (SIDE_VECTOR,) if name in network.inputs],
        {name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in network.inputs.items()},
        side_vector=side_vector,
        class_names=tuple(facts.inputs.get(SIDE_VECTOR, {}).get("classes", ())),
    )
    maps = _side_maps(facts, network, side_map)
    latent_size = network.inputs[LATENT_CODE].shape[-1] if LATENT_CODE in network.inputs else 0
    translate = BatchFunction(_function(network, vector, latent_size), devices=network.devices)
    return Translator(
        description=f"{found}{facts.description}",
        input=facts.role(IMAGE, network.inputs[IMAGE].shape[-1]),
        output=facts.role(OUTPUT, network.output_channels),
        check_size=facts.check_size,
        translate=_naming_sizes(translate),
        compiled=translate,
        trace_size=None if facts.sizes else _try_on_zeros(translate, network),
        factor=Fraction(facts.sizes.get("output_by_input", 1)).limit_denominator(64),
        side_maps=maps,
        latent_size=latent_size,
    )


def _function(
    network: ExportedNetwork, vector: Sequence[float] | None, latent_size: int
) -> Callable[..., tf.Tensor]:
    """What `Translator.translate` computes."""

    def translate(
        pictures: tf.Tensor, maps: tf.Tensor | None = None, codes: tf.Tensor | None = None, *_: None
    ) -> tf.Tensor:
        rows = tf.shape(pictures)[0]
        features = {IMAGE: pictures}
        if maps is not None:
            features[SIDE_MAP] = maps
        if vector is not None:
            features[SIDE_VECTOR] = tf.repeat(tf.constant([vector], tf.float32), rows, axis=0)  # [B, K]
        if latent_size:
            features[LATENT_CODE] = tf.zeros([rows, latent_size]) if codes is None else codes
        return network.call(features)

    return translate


def _naming_sizes(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """The same function; where it fails, the size is named, which is the only thing that differs."""

    def checked(pictures: tf.Tensor, *others: tf.Tensor | None) -> tf.Tensor:
        try:
            return function(pictures, *others)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            height, width = pictures.shape[1:3]
            raise ConfigurationError(
                f"the exported network does not take {height}x{width} pixels (height x width); resize the "
                "picture"
            ) from error

    return checked


def _try_on_zeros(function: Callable[..., tf.Tensor], network: ExportedNetwork) -> Callable[[int, int], None]:
    def check(height: int, width: int) -> None:
        _naming_sizes(function)(tf.zeros([1, height, width, network.inputs[IMAGE].shape[-1]]))

    return check


def _side_maps(facts: ExportFacts, network: ExportedNetwork, side_map: str | None) -> SideMaps | None:
    """The maps for pictures; None if the network takes none."""
    takes_maps = SIDE_MAP in network.inputs
    if takes_maps and side_map is None:
        raise ConfigurationError(
            "no --side_map given, which the network takes: a folder with a map for each picture, of the same "
            "name and size"
        )
    if side_map is None:
        return None
    if not takes_maps:
        raise ConfigurationError(f"--side_map={side_map}: the network takes none; leave it out")
    return SideMaps(side_map, facts.role(SIDE_MAP, network.inputs[SIDE_MAP].shape[-1]))
