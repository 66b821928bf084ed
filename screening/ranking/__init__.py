"""Scores in order: rules, cascades, and the recall of a cascade.

Enters: scored rows. Leaves: ranked rows.
"""
