"""From a data set to batches on replicas and workers.

The contract it reads from is `engine.training_data.TrainingData`.
"""
