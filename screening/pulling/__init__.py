"""Sources of a config, pulled portion by portion.

Enters: a source of the config, and how far its pull is. Leaves: the steps of the pull.
"""
