"""Weights of the PyTorch reference: reading and writing its files, and fitting them to our networks.

Nothing in a file is executed, and PyTorch is not needed.
"""
