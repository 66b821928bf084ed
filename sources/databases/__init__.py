"""Databases behind a network: clients, pages, providers, filters.

Enters: a query. Leaves: pages of `Crystals` and refused rows.
"""
