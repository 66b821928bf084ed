"""The commands that decide what to measure next, one module each.

Enters: the command line. Leaves: an exit code.
"""
