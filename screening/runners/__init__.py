"""Runners and workers: this process, its child, or Ray does the work of a campaign.

Enters: units of work. Leaves: results.
"""
