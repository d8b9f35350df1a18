"""Prepared data sets on disk, and how an image is kept in a record and decoded from it.

The format is TFDS's.
"""
