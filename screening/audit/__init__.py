"""A second look at a campaign folder: is it intact, how does it stand, what was refused.

Enters: a campaign folder. Leaves: reports; nothing is written.
"""
