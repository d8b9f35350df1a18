"""From TFRecord files to batches: order, reading, decoding, cropping, normalisation.

All of it is a pure function of (seed, position).
"""
