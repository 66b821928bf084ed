"""The campaign folder: lock, ledger, snapshot, and the counts that must add up.

Enters: committed steps. Leaves: records and tables that readers trust.
"""
