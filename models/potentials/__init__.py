"""Force fields: energies, forces and stresses of crystals, and the crystals relaxed by them.

Enters: `Crystals`. Leaves: an `Evaluation`, or `Relaxed` crystals. One module per force field that
was made elsewhere. This package does not know files, campaigns or the command line.
"""
