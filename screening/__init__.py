"""The fourth room: campaigns. Crystals and trained ensembles enter, a ranked table with a report leaves.

Knows config, plan, workers, ledger, ranking, report and command line. It does not know how an angle
or an attention head is computed.
"""
