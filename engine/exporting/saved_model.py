"""SavedModels: signatures for batches of floats, and for the bytes of image files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from data.roles import SIDE_MAP
from engine.exporting.encoded_pictures import pixel_format
from engine.exporting.picture_sizes import PictureSizes
from engine.exporting.translation import IMAGE, OUTPUT, Translation

FLOATS, ENCODED, PIXELS = "serving_default", "encoded", "pixels"
"""Names of the signatures."""

IMAGE_BYTES, MAP_BYTES, PNG_BYTES, SIZE = "image_bytes", f"{SIDE_MAP}_bytes", "png_bytes", "size"
"""Names of further inputs and outputs. For those that end in "_bytes", TensorFlow Serving gives base64."""

_BYTES = "_bytes"
_BYTES_SPEC = tf.TensorSpec([None], tf.string)

Features = Mapping[str, tf.Tensor]


class SavedTranslation(tf.Module):
    """The signatures of a translation.

    Args:
      translation: its networks are saved.
      sizes: that they take.
      pads: whether floats of any size are padded to one that the networks take, and the results cropped.
    """

    def __init__(self, translation: Translation, sizes: PictureSizes, *, pads: bool = True):
        super().__init__(name="translation")
        self._translation, self._sizes, self._pads = translation, sizes, pads
        self._input = pixel_format(translation.input_format)
        self._output = pixel_format(translation.output_format)
        self._map = None if translation.map_format is None else pixel_format(translation.map_format)
        # Variables alone: a network that is an attribute would be saved with all its layers.
        self.kept_variables = [
            variable.value
            for network in translation.networks.values()
            for variable in getattr(network, "variables", ())
        ]

    def signatures(self, *, encoded: bool = True, fixed: bool = False) -> dict[str, Any]:
        """The concrete functions to save, by name.

        Args:
          encoded: also those that take the bytes of image files, if such files can hold the pictures.
          fixed: for one picture of the size of the training only.
        """
        features = self._translation.features
        specs = self._sizes.fixed(features, batch=1) if fixed else self._sizes.specs(features)
        # Traced once, for all signatures.
        self._rgb = tf.function(lambda **given: self._translation.rgb(given), autograph=False)
        self._rgb = self._rgb.get_concrete_function(**specs)
        found = {FLOATS: _signature(lambda features: {OUTPUT: self.translate(features)}, specs)}
        if encoded and self.takes_bytes:
            of_bytes = self._specs_of_bytes(specs)
            if self._output.has_encoding:
                found[ENCODED] = _signature(self._to_png, of_bytes)
            found[PIXELS] = _signature(self._to_pixels, of_bytes)
        return found

    @property
    def takes_bytes(self) -> bool:
        """Whether image files that TensorFlow decodes can hold the pictures."""
        return self._input.has_encoding and (self._map is None or self._map.has_encoding)

    def translate(self, features: Features) -> tf.Tensor:
        """Translates floats: features of `Translation.features` -> [B, H', W', C]."""
        if not self._pads:
            return self._rgb(**features)
        padded = {
            name: self._sizes.pad(values) if values.shape.rank == 4 else values
            for name, values in features.items()
        }
        return self._sizes.crop(self._rgb(**padded), features[IMAGE])

    def _specs_of_bytes(self, specs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
        names = {IMAGE: IMAGE_BYTES, SIDE_MAP: MAP_BYTES}
        return {
            names.get(name, name): _renamed(_BYTES_SPEC, names[name]) if name in names else spec
            for name, spec in specs.items()
        }

    def _one(self, features: Features) -> tf.Tensor:
        """Translates one picture: the features of one row -> pixels [H', W', C]."""
        decoded = {IMAGE: self._input.decode(features[IMAGE_BYTES])}
        if self._map is not None:
            decoded[SIDE_MAP] = self._map.decode(features[MAP_BYTES])
            same = tf.debugging.assert_equal(
                tf.shape(decoded[IMAGE])[:2], tf.shape(decoded[SIDE_MAP])[:2], "the map has another size"
            )
            with tf.control_dependencies([same]):
                decoded[SIDE_MAP] = tf.identity(decoded[SIDE_MAP])
        decoded |= {name: features[name] for name in features if not name.endswith(_BYTES)}
        batch = {name: values[tf.newaxis] for name, values in decoded.items()}
        if self._sizes.multiple is None:
            fixed = self._sizes.fixed(dict(self._translation.features), batch=1)
            batch = {name: tf.ensure_shape(values, fixed[name].shape) for name, values in batch.items()}
        return self._output.to_pixels(self.translate(batch)[0])

    def _to_png(self, features: Features) -> dict[str, tf.Tensor]:
        """Bytes [B] -> PNG files [B]. Sizes may differ, so pictures are translated one by one."""
        return {
            PNG_BYTES: tf.map_fn(
                lambda row: tf.io.encode_png(self._one(row)), dict(features), fn_output_signature=tf.string
            )
        }

    def _to_pixels(self, features: Features) -> dict[str, tf.Tensor]:
        """Bytes [B] -> pixels [B, H', W', C] and their size [B, 2]; smaller pictures end in zeros."""
        spec = tf.RaggedTensorSpec(
            [None, None, self._output.channels], tf.as_dtype(self._output.dtype), ragged_rank=1
        )

        def one(row: Features) -> tuple[tf.RaggedTensor, tf.Tensor]:
            pixels = self._one(row)
            return tf.RaggedTensor.from_tensor(pixels, ragged_rank=1), tf.shape(pixels)[:2]

        ragged, sizes = tf.map_fn(
            one, dict(features), fn_output_signature=(spec, tf.TensorSpec([2], tf.int32))
        )
        return {PIXELS: ragged.to_tensor(), SIZE: sizes}


def _signature(
    function: Callable[[Features], dict[str, tf.Tensor]], specs: Mapping[str, tf.TensorSpec]
) -> Any:
    """A concrete function of named tensors."""
    traced = tf.function(lambda **features: function(features), autograph=False)
    return traced.get_concrete_function(**{name: _renamed(spec, name) for name, spec in specs.items()})


def _renamed(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name)
