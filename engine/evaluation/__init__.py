"""Metrics over a whole split, and grids of sample images.

The programs are `engine.evaluate` and `engine.preview`.
"""
