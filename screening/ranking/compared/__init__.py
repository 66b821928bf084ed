"""Rows compared with one another: draws of true values, the best of each draw, fronts.

Enters: arrays of numbers. Leaves: probabilities and fronts.
"""
