"""Reads image files: JPEG, PNG, BMP, GIF, WebP, TIFF and raw video.

Images become NumPy arrays without loss: 8 and 16 bits, float, any number of channels.
"""
