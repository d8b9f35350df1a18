"""The compiled training step: forward pass, losses, gradients, one all-reduce a phase, updates.

One call of the compiled loop does many steps; everything here runs inside it or holds its variables.
"""
