"""Networks, training, checkpoints, ensembles and their calibration.

Enters: `Crystals` and `assay.featurize.graphs.Graphs`. Leaves: predictions with error bars, and
checkpoint folders. This room does not know databases, campaigns or Ray.
"""
