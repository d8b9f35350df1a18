"""Several runs of one experiment with different settings: which they are, running them, comparing them."""
