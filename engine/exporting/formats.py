"""Writes the files of an export, each compared with the run before it counts."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data.roles import SIDE_MAP
from engine.errors import ConfigurationError
from engine.exporting import onnx_file
from engine.exporting.comparison import Difference, check_difference, check_finite, difference
from engine.exporting.encoded_pictures import pixel_format
from engine.exporting.example_pictures import examples_of, one_by_one
from engine.exporting.export_folder import REMEDY
from engine.exporting.exported_run import ExportedRun
from engine.exporting.portable_network import PortableNetwork, portable_network
from engine.exporting.saved_model import FLOATS, IMAGE_BYTES, MAP_BYTES, PIXELS, SavedTranslation
from engine.exporting.tflite_file import TfliteFile, convert
from engine.exporting.translation import IMAGE, OUTPUT, Translation
from engine.storage.file_errors import reraise_write_errors

SAVED_MODEL, KERAS, TFLITE, ONNX = "saved_model", "keras", "tflite", "onnx"
DTYPES = {
    SAVED_MODEL: ("float32", "float16"),
    KERAS: ("float32", "float16"),
    TFLITE: ("float32", "float16", "int8"),
    ONNX: ("float32",),
}
"""Format -> what its weights may be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file of an export, or a folder.

    Attributes:
      path: in the folder of the export.
      format: one of `DTYPES`.
      dtype: of its weights.
      found: its difference from the run.
      any_size: whether it takes any batch and any size that the networks take.
      needs_classes: classes that Keras does not have, without which it cannot be loaded.
      notes: for people.
    """

    path: str
    format: str
    dtype: str
    found: Difference
    any_size: bool
    needs_classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class FormatWriter:
    """Writes the files of one run.

    Args:
      run: to export.
      folder: to write in.
      output: the name that it will have, for messages.
      fast: whether the networks are those for fast inference.
      calibration_examples: that int8 is calibrated with.
    """

    def __init__(self, run: ExportedRun, folder: str, *, output: str, fast: bool, calibration_examples: int):
        self._run, self._folder, self._output = run, folder, output
        self._fast, self._calibration_examples = fast, calibration_examples
        self._graphs: list[str] = []
        self._converted: dict[str, dict[str, PortableNetwork]] = {}

    @property
    def folded(self) -> int:
        """Batch norms that are folded into convolutions."""
        return sum(network.folded for network in self._portable("float32").values()) if self._fast else 0

    def write(self, format: str, dtype: str) -> ExportedFile:
        """Writes a file.

        Args:
          format: one of `DTYPES`.
          dtype: one of those of the format.

        Raises:
          ConfigurationError: the networks cannot be written so, a file cannot be written, or it differs from
            the run.
          engine.errors.NonFiniteOutputError: its results are not finite.
        """
        writers = {
            SAVED_MODEL: self._saved_model,
            KERAS: self._keras,
            TFLITE: self._tflite,
            ONNX: self._onnx,
        }
        written = writers[format](dtype)
        exact = self._run.is_exact and dtype == "float32"
        check_difference(written.found, file=written.path, is_exact=exact)
        return written

    def close(self) -> None:
        """Removes what only conversions needed."""
        for path in self._graphs:
            shutil.rmtree(path, ignore_errors=True)

    def _saved_model(self, dtype: str) -> ExportedFile:
        name = "saved_model" + ("" if dtype == "float32" else f"_{dtype}")
        path = os.path.join(name, "1")  # TensorFlow Serving wants a folder of versions
        module = SavedTranslation(self._translation(dtype), self._run.sizes)
        self._save(os.path.join(self._folder, path), module, module.signatures())
        loaded = tf.saved_model.load(os.path.join(self._folder, path))
        found = self._compared(loaded.signatures[FLOATS](**self._run.examples.features)[OUTPUT], path)
        notes = []
        if PIXELS in loaded.signatures:
            check_difference(
                self._compared_bytes(loaded),
                file=f"{path}, of bytes",
                is_exact=dtype == "float32" and self._run.is_exact,
            )
        else:
            notes.append("takes floats only: no image file that TensorFlow decodes holds such pictures")
        return ExportedFile(
            path=name,
            format=SAVED_MODEL,
            dtype=dtype,
            found=found,
            any_size=self._run.sizes.multiple is not None,
            notes=tuple(notes),
        )

    def _keras(self, dtype: str) -> ExportedFile:
        name = self._the_network()
        network = self._portable(dtype)[name]
        path = "generator" + ("" if dtype == "float32" else f"_{dtype}") + ".keras"
        whole = os.path.join(self._folder, path)
        with reraise_write_errors(f"--output={self._output}", remedy=REMEDY):
            network.model.save(whole)
        model = keras.saving.load_model(whole, compile=False)
        inputs, expected = self._run.calls[name][0]
        outputs = model(inputs, training=False)
        check_finite(outputs, what=path)
        return ExportedFile(
            path=path,
            format=KERAS,
            dtype=dtype,
            found=difference(outputs, expected),
            any_size=self._run.sizes.multiple is not None,
            needs_classes=network.foreign,
            notes=(f"maps {_shapes(inputs)} to {_shapes(outputs)} as the network does",),
        )

    def _tflite(self, dtype: str) -> ExportedFile:
        calibration: Iterator[Mapping[str, tf.Tensor]] = iter(())
        notes = []
        if dtype == "int8":
            examples = examples_of(
                self._run.translation,
                self._run.trainer.experiment.data,
                count=self._calibration_examples,
                train=True,
            )
            calibration = one_by_one(examples)
            notes.append(f"calibrated with {examples.count} {examples.origin}")
        any_size = self._run.sizes.multiple is not None
        rows = list(calibration)
        try:
            content = convert(self._graph(fixed=False), dtype=dtype, calibration=rows)
        except ConfigurationError:
            if not any_size:
                raise
            any_size = False
            content = convert(self._graph(fixed=True), dtype=dtype, calibration=rows)
        path = f"model_{dtype}.tflite"
        self._write_bytes(path, content)
        model = TfliteFile(content)
        results = np.concatenate([model(row) for row in one_by_one(self._run.examples)])
        return ExportedFile(
            path=path,
            format=TFLITE,
            dtype=dtype,
            found=self._compared(results, path),
            any_size=any_size,
            notes=tuple(notes),
        )

    def _onnx(self, dtype: str) -> ExportedFile:
        translation = self._translation(dtype)
        content = onnx_file.convert(translation.rgb, self._run.sizes.specs(translation.features))
        self._write_bytes("model.onnx", content)
        results = onnx_file.OnnxFile(content)(self._run.examples.features)
        return ExportedFile(
            path="model.onnx",
            format=ONNX,
            dtype=dtype,
            found=self._compared(results, "model.onnx"),
            any_size=self._run.sizes.multiple is not None,
        )

    def _compared(self, results: Any, path: str) -> Difference:
        check_finite(results, what=path)
        return difference(results, self._run.expected)

    def _compared_bytes(self, loaded: Any) -> Difference:
        """Compares what comes of the bytes of image files, on the scale of the data."""
        translation, given = self._run.translation, dict(self._run.examples.features)
        given[IMAGE_BYTES] = pixel_format(translation.input_format).encode(given.pop(IMAGE))
        if translation.map_format is not None:
            given[MAP_BYTES] = pixel_format(translation.map_format).encode(given.pop(SIDE_MAP))
        stored = pixel_format(translation.output_format)
        results = loaded.signatures[PIXELS](**given)[PIXELS]
        return difference(stored.to_signed(results), stored.to_signed(stored.to_pixels(self._run.expected)))

    def _the_network(self) -> str:
        """The name of the network that translates alone.

        Raises:
          ConfigurationError: several translate together, or one does so in several passes.
        """
        calls = self._run.calls
        if len(calls) != 1 or len(next(iter(calls.values()))) != 1:
            raise ConfigurationError(
                f"--format=keras: the run translates with {len(calls)} networks ({', '.join(calls)}) or in "
                "several passes, which one .keras file does not hold; use --format=saved_model"
            )
        return next(iter(calls))

    def _portable(self, dtype: str) -> dict[str, PortableNetwork]:
        if dtype not in self._converted:
            self._converted[dtype] = {
                name: portable_network(network, dtype=dtype, fold=self._fast)
                for name, network in self._run.translation.networks.items()
            }
        return self._converted[dtype]

    def _translation(self, dtype: str) -> Translation:
        """The translation with the networks that are wanted."""
        if not self._fast and dtype == "float32":
            return self._run.translation
        networks = {name: network.model for name, network in self._portable(dtype).items()}
        return self._run.translation.with_networks(networks)

    def _graph(self, *, fixed: bool) -> str:
        """A SavedModel without padding, for conversion."""
        path = os.path.join(self._folder, f".graph_{'fixed' if fixed else 'free'}")
        if path not in self._graphs:
            module = SavedTranslation(self._translation("float32"), self._run.sizes, pads=False)
            self._save(path, module, module.signatures(encoded=False, fixed=fixed))
            self._graphs.append(path)
        return path

    def _save(self, path: str, module: SavedTranslation, signatures: dict[str, Any]) -> None:
        with reraise_write_errors(f"--output={self._output}", remedy=REMEDY):
            tf.saved_model.save(module, path, signatures=signatures)

    def _write_bytes(self, path: str, content: bytes) -> None:
        with (
            reraise_write_errors(f"--output={self._output}", remedy=REMEDY),
            open(os.path.join(self._folder, path), "wb") as file,
        ):
            file.write(content)


def _shapes(tensors: Any) -> str:
    """Such as "[?, ?, ?, 3] and [?, 8]"."""
    shapes = [["?"] * (x.shape.rank - 1) + [str(x.shape[-1])] for x in keras.tree.flatten(tensors)]
    return " and ".join(f"[{', '.join(shape)}]" for shape in shapes)
