"""The global batch: its layout on replicas, scaling rules for the learning rate, the noise scale, memory.

The schedules that choose its size are in `engine.batch_schedules` and `engine.adaptive_batch`.
"""
