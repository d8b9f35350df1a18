"""The Python loop around the compiled one: what happens between two of its calls, and how a run ends.

Periodic actions, schedules that decide, signals, time limits, values that are not finite.
"""
