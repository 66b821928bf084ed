"""Single formats: the objects of other libraries, and OPTIMADE's JSON lines.

Enters: structures of pymatgen and ASE, or a path. Leaves: `Crystals` and refused rows.
"""
