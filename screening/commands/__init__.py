"""The command line: one file per group of commands.

Enters: arguments. Leaves: text, and an exit code.
"""
