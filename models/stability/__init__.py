"""Stability against decomposition: convex hulls of formation energies, and what they are made of.

Enters: compositions and energies of reference phases. Leaves: hull energies, competing phases.
"""
