"""Prepared data sets on disk, in TFDS's format, and the encoding of images in their records."""
