"""Weights of the PyTorch reference: reads and writes its files, and converts them for our networks.

It executes nothing in a file, and does not need PyTorch.
"""
