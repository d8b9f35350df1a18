"""Streams of video frames: read and written one after the other, so that a clip of any length fits in memory.

Raw video (.y4m, .yuv) and folders of pictures need nothing else; other files need PyAV, an extra.
"""
