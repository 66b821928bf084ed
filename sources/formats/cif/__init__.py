"""Everything that knows CIF: grammar, symmetry, sites, and the crystal made of them.

`read` hands the crystals of a text to an assembler; nothing else is used from outside.
"""
