"""Image files as people have them: JPEG, PNG, BMP, GIF, WebP, TIFF and raw video.

They come out as NumPy arrays with nothing cut: 8 and 16 bits, float, any number of channels.
"""
