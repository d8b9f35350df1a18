"""Exporting trained networks: SavedModel, Keras file, TFLite and ONNX, each compared with the run.

`engine.export` is the program.
"""
