"""Forests of regression trees, stored as arrays and walked by compiled loops."""
