"""How much memory a step takes, and the largest micro-batch that fits.

Measured in a child process, kept in the run, halved if memory runs out after all.
"""
