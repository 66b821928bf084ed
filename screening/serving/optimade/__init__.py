"""Candidates as OPTIMADE structures, through the reference implementation."""
