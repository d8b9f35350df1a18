"""Keys of the images and vectors of an example, in batches and augmentations; kinds of targets."""

INPUT, TARGET = "input", "target"
"""Images of an example: the input of a network, and the target for its output."""

SIDE_VECTOR, SIDE_MAP = "side_vector", "side_map"
"""Side information of an example, if a data set has some: a vector float32 [K]; a map, which is an image."""

CLASSES, NUMBERS = TARGET_KINDS = ("classes", "numbers")
"""Kinds of targets that are vectors float32 [K]: one-hot classes, or numbers in their own units."""
