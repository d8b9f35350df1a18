"""The training engine: everything that knows `tf.distribute`, and the command-line programs."""

import engine.cli.early_signals  # noqa: F401  before anything that takes time

# isort: split
import os

# A variable or ~/.keras/keras.json that names another backend is meant for other programs.
os.environ["KERAS_BACKEND"] = "tensorflow"

import data.quiet_tensorflow  # noqa: F401  before anything imports TensorFlow
