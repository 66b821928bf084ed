"""The networks and their layers.

Enters: batches of graphs or pictures. Leaves: one number per crystal and property.
"""
