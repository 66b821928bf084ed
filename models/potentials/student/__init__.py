"""Assay's own force field: PaiNN (Schütt, Unke and Gastegger, ICML 2021), small and fast.

Enters: `Crystals`. Leaves: an `Evaluation`. The network in torch is trained
(`assay.models.training.distil`); the same weights, frozen into tables and compiled loops, screen.
"""
