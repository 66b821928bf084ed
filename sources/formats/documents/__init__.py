"""JSON of pymatgen and ASE.

Enters: the text of a file. Leaves: crystals in an assembler, and records.
"""
