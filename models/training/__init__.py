"""From a recipe to a trained ensemble.

Enters: a recipe and datasets. Leaves: checkpoint folders with cards.
"""
