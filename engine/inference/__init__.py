"""Using trained networks outside training.

The programs are `engine.translate` and `engine.evaluate`.
"""
