"""Generators, discriminators and their layers; each builder returns a `keras.Model`."""
