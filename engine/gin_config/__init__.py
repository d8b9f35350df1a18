"""From gin files and overrides to an `Experiment`; the only room that imports gin.

gin alone accepts a misspelt macro, a value of the wrong type and an unused binding. Here each is an error.
"""
