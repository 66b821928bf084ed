"""The best candidates of a campaign, as files that other programs read.

Enters: a campaign folder. Leaves: files of structures, inputs of calculations, tables.
"""
