"""Weights that others published.

Enters: archives of alignn. Leaves: checkpoints, and graphs as alignn builds them.
"""
