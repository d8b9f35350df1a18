"""A page and plots about one or several runs, made from the files in their run directories.

Nothing here builds a network: a run can be reported while it trains, and without its data set.
"""
