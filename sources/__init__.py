"""Where crystals come from: databases, files and hypothetical prototypes.

Enters: OPTIMADE replies, structure files, Parquet tables, prototype recipes.
Leaves: `assay.sources.crystals.Crystals`, and one quarantine record for each crystal it refuses.
This room does not know graphs, networks or Ray.
"""
