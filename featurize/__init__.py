"""Geometry of crystals: neighbours, angles, element tables.

Enters: `assay.sources.crystals.Crystals`. Leaves: `assay.featurize.graphs.Graphs`.
This room does not know where a crystal came from, networks or Ray.
"""
