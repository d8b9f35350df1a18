"""A training starts without what its first step does not need."""

import subprocess
import sys

# Each takes 0.2 s or more, and belongs to something that most trainings never do, or do at their end.
SLOW = ("matplotlib.pyplot", "scipy.stats", "pandas", "tensorflow_hub", "tensorflow_probability", "torch")

START = f"""
import gc, sys, types
sys.argv = ["-m"]
thresholds = gc.get_threshold()
import engine.train
# A lazy module is a subclass of a module until it is executed.
print([name for name in {SLOW} if type(sys.modules.get(name)) is types.ModuleType])
print(gc.isenabled(), gc.get_threshold() == thresholds, gc.get_freeze_count() > 100_000)
print(sys.modules["keras.src.visualization.plot_image_gallery"].plt.plot)
"""


def test_slow_modules_wait_until_they_are_used():
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    imported, collector, plots = done.stdout.splitlines()
    assert imported == "[]"
    assert collector == "True True True"
    assert plots.startswith("<function plot ")  # Keras's own plots are as before
