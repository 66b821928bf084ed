"""Who does the work: this process, its child, or Ray.

Enters: tasks. Leaves: results.
"""
