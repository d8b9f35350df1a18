"""The built-in data set: drawn facades, so that training needs no download.

Label maps are drawn first; images are rendered from them.
"""
