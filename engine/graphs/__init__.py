"""What a TensorFlow graph needs: memory of its tensors, floating-point operations.

Nothing here runs a graph.
"""
