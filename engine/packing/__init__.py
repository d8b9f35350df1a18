"""Packed runs: a run, its data set and what it needs to be installed, in one .tar with a manifest.

`engine.pack` is the program. `archive_writer` writes archives; `archive_reader` trusts nothing in them.
"""
