"""The embedded data set: drawn facades, so that Gantry trains without a download.

Label maps are drawn first, then rendered as pictures.
"""
