"""The fourth room: campaigns.

Enters: configs, crystals and trained ensembles. Leaves: campaign folders with a ranked table and a
report. This room does not know how an angle or an attention head is computed.
"""
