"""A campaign from its config to its outputs.

Enters: a validated config. Leaves: a campaign folder.
"""
