"""The compiled training step: forward pass, losses, gradients, one all-reduce for each phase, updates.

One call of the compiled loop runs many steps. The code here runs inside that loop or holds its variables.
"""
