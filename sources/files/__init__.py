"""Crystals in files, and as objects of other libraries.

Enters: paths, or structures of pymatgen and ASE. Leaves: `Crystals` and refused rows.
"""
