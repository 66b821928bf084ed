"""Sources of a config, read page by page.

Enters: a source of the config. Leaves: pages, shards, and what went wrong.
"""
