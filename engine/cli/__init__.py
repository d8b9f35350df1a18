"""How every command-line program starts and ends: flags, signals, one-line errors, exit codes.

Nothing here needs TensorFlow.
"""
