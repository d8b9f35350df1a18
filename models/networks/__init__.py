"""Generators and discriminators, the layers they are made of, and how side information enters them.

Each builder returns a `keras.Model`.
"""
