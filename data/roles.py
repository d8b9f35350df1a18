"""Names of what an example holds, in batches and in augmentations."""

INPUT, TARGET = "input", "target"
"""Images of an example: what a network takes, and what its output should become."""

SIDE_VECTOR, SIDE_MAP = "side_vector", "side_map"
"""Side information of an example, where a data set has some: float32 [K]; an image."""
