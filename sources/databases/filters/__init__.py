"""OPTIMADE filters: `grammar` parses them, `checker` judges rows against them.

Enters: the text of a filter, and the properties of rows. Leaves: a parse tree, and judgements.
This folder does not know HTTP or pages.
"""
