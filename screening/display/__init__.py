"""Crystals and tables for people to look at: drawings of cells, the scripts of pages."""
