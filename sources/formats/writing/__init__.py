"""Writes crystals for other programs.

Enters: `Crystals`, and facts about each. Leaves: the texts of files.
"""
