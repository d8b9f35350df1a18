"""From a folder of images to a TFDS data set: layouts, splits, checks, writing, the report.

The program is `data.prepare`.
"""
