"""Crystals as pictures: scenes, colours, pixels.

Enters: `Crystals`. Leaves: images as arrays.
"""
