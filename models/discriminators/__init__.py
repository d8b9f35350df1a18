"""What training adds to a discriminator: its losses and the image pool.

The networks themselves are in `models.networks`.
"""
