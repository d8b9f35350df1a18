"""Networks, losses, and one file per task."""
