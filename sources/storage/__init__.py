"""Where crystals lie: files, packed files, archives and folders.

Enters: paths. Leaves: names of files, and streams within bounds.
"""
