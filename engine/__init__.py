"""The training engine: everything that knows `tf.distribute`, and the command-line programs."""

import data.quiet_tensorflow  # noqa: F401  before anything imports TensorFlow
