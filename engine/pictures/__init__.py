"""Picture files as a run knows them: read as its data were, written as its targets, beside maps and pairs.

Nothing here runs a network.
"""
