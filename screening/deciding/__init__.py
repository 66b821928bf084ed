"""From a ranking to a decision: what to measure next, and how that would have gone before.

Enters: finished campaigns, training sets. Leaves: batches, rehearsals of sequential campaigns.
"""
