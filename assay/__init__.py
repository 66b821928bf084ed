"""Assay screens crystalline materials: see `docs/python.md`."""
