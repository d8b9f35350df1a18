"""The devices of a run and the rules that hold on all of them.

Strategies, GPUs, SLURM and several workers; precision, determinism and XLA; the check that replicas agree.
"""
