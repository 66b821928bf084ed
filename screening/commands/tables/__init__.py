"""Commands about tables of numbers that are known or predicted already.

Each module holds one command; `assay.screening.commands.cli` lists them.
"""
