"""Trained members together: loading, prediction, calibration, novelty, explanation.

Enters: checkpoint folders and `Crystals`. Leaves: predictions with error bars.
"""
