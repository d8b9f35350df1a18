"""What stands around a discriminator in training: its losses, the image pool, DiffAugment.

The networks themselves are in `models.networks`.
"""
