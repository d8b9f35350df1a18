"""The global batch: its layout on replicas, what its size does to the learning rate, the noise scale.

The schedules that choose its size are `engine.batch_schedules` and `engine.adaptive_batch`.
"""
