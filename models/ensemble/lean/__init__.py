"""Trained networks that predict without torch."""
