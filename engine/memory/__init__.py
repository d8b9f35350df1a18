"""Finding the largest micro-batch that fits into memory.

It is measured in a child process, recorded in the run directory, and halved if memory runs out after all.
"""
