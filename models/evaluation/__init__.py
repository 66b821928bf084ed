"""How good a model is: splits, metrics, baselines, pages.

Enters: predictions and known values. Leaves: tables, figures and numbers.
"""
