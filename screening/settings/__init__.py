"""Configs, secrets, exit codes: what everything above rests on.

Enters: YAML. Leaves: validated settings.
"""
