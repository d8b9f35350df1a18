"""Translates pictures, frames and arrays of any size: padding, tiles, batches, threads, files.

The networks come from `engine.inference`.
"""
