"""From gin files and overrides to an `Experiment`: the only room that imports gin.

What gin accepts in silence (misspelt macros, wrong types, unused bindings) is an error here.
"""
