"""The outer loop, in Python: calls the compiled loop, and acts between its calls.

Periodic actions, schedules, signals, time limits, values that are not finite.
"""
