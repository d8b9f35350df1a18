"""What `engine.doctor` finds out before a training: networks, memory, devices, time, advice, recipes.

Each module answers one question. No step is run here, apart from those of `engine.memory`.
"""
