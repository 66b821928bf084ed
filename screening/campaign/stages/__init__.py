"""The stages of a campaign, one per file; `assay.screening.campaign.flow` lists them in order.

Enters: a ledger. Leaves: units of work, and records in that ledger.
"""
