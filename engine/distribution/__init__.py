"""Which devices a run uses, and what holds over all of them.

Strategies, GPUs, SLURM and several workers; precision, determinism and XLA; the check that replicas agree.
"""
