"""Metrics of a whole split, and grids of sample pictures.

The programs are `engine.evaluate` and `engine.preview`.
"""
