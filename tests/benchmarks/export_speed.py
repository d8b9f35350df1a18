"""How far exports of a run are from the run, how large they are, and how fast they translate.

python tests/benchmarks/export_speed.py --workdir=runs/quickstart [--batch=8] [--rounds=5] [--sec=0.5]

Each form translates the same test pictures in turn, for --sec seconds of processor time in each round; the
median over the rounds counts. Processor time of the whole process, so a rate is per core: other programs on
the machine disturb little. The run itself is its own networks in a compiled function.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time

import keras
import tensorflow as tf

from engine.export import export
from engine.exporting.exported_run import open_for_export
from engine.exporting.onnx_file import OnnxFile
from engine.exporting.tflite_file import TfliteFile
from engine.inference.evaluation_mode import EvaluationMode

MODES = ("batch_statistics", "moving_statistics")


def pictures_per_sec(translate, pictures, sec):
    """Pictures that a function translates in a second of processor time."""
    done, start = 0, time.process_time()
    while time.process_time() - start < sec:
        translate(pictures)
        done += len(pictures)
    return done / (time.process_time() - start)


def size_mib(path):
    """Of a file, or of all files in a folder."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    return sum(map(os.path.getsize, files)) / 2**20


def loaded(path):
    """A function that translates with an exported file or folder."""
    if path.endswith(".keras"):
        network = keras.saving.load_model(path, compile=False)
        compiled = tf.function(lambda x: network(x, training=False), autograph=False, reduce_retracing=True)
        return lambda x: compiled(x).numpy()
    if path.endswith((".tflite", ".onnx")):
        with open(path, "rb") as file:
            model = (TfliteFile if path.endswith(".tflite") else OnnxFile)(file.read())
        return lambda x: model({"image": x})
    signature = tf.saved_model.load(os.path.join(path, "1")).signatures["serving_default"]
    return lambda x: signature(image=x)["output"].numpy()


def forms_of(options, norm_mode, folder):
    """(name, difference, MiB, function) of the run and its exports in a mode of batch norm; and pictures."""
    mode = EvaluationMode(norm_mode=norm_mode)
    has_onnx = all(map(importlib.util.find_spec, ("tf2onnx", "onnxruntime")))
    of_mode = {"workdir": options.workdir, "norm_mode": norm_mode, "examples": options.batch}
    exports = {"": {"formats": ["saved_model", "keras", "tflite"] + ["onnx"] * has_onnx}}
    exports[""]["dtypes"] = ["float32", "float16", "int8"]
    if norm_mode == "moving_statistics":
        exports["folded "] = {"formats": ["saved_model", "tflite"], "fast": True}
    written = []
    for name, flags in exports.items():
        output = os.path.join(folder, norm_mode + name.strip())
        for file in export(output=output, **of_mode, **flags):
            path = os.path.join(output, file.path)
            written.append((f"{name}{file.format} {file.dtype}", file.found, size_mib(path), path))
    run = open_for_export(
        options.workdir, checkpoint="latest", mode=mode, direction=None, data_dir=None, examples=options.batch
    )
    compiled = tf.function(
        lambda x: run.translation.rgb({"image": x}), autograph=False, reduce_retracing=True
    )
    forms = [("the run", None, None, lambda x: compiled(x).numpy())]
    return forms + [(*about, loaded(path)) for *about, path in written], run.examples.features["image"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sec", type=float, default=0.5)
    options = parser.parse_args()
    for norm_mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            forms, pictures = forms_of(options, norm_mode, folder)
            batches = (1, options.batch)
            rates = {(name, batch): [] for name, *_ in forms for batch in batches}
            for round_number in range(options.rounds + 1):
                for name, *_, translate in forms:
                    for batch in batches:
                        sec = options.sec if round_number else 0.0  # the first round traces
                        rate = pictures_per_sec(translate, pictures[:batch], max(sec, 1e-3))
                        rates[name, batch] += [rate] if round_number else []
        print(f"\n{norm_mode}; pictures/s of processor time, batch {batches[0]} and {batches[1]}")
        for name, found, mib, _ in forms:
            numbers = "  ".join(f"{statistics.median(rates[name, batch]):8.1f}" for batch in batches)
            print(f"{name:28} {'' if mib is None else f'{mib:6.1f} MiB'}  {numbers}  {found or ''}")


if __name__ == "__main__":
    main()
