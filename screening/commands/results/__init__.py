"""The commands on the folder of a campaign: how far it is, whether it is intact, its best crystals.

Enters: a campaign folder. Leaves: text on the terminal, and files of candidates.
"""
