"""Formats: a module or a folder for each kind of file, and one for objects of other libraries.

Enters: the text, the lines or the bytes of one file, or structures of pymatgen and ASE. Leaves:
crystals, and a record for each one that cannot be used.
"""
