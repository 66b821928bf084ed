"""Prediction without a campaign: crystals in memory or in files, one ensemble, answers at once.

Enters: crystals and an ensemble. Leaves: tables, text and pictures. It does not know the ledger.
"""
