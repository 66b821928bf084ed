"""The predictive distribution of forests: the values of all their trees, and what follows from it.

Enters: draws, one value per crystal and tree. Leaves: one value, an interval, probabilities.
"""
