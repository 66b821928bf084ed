"""Recipes, studies and searches as commands run them.

Enters: YAML. Leaves: trained ensembles and tables.
"""
