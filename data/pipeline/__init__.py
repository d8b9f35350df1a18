"""From TFRecord files to batches: order, reading, decoding, cropping, normalisation.

A batch is a pure function of (seed, position).
"""
