"""Geometry of crystals: neighbours, angles, element tables.

Enters: `sources.crystals.Crystals`. Leaves: `featurize.graphs.Graphs`.
This room does not know where a crystal came from, networks or Ray.
"""
