"""The steps between two matrix products of a graph network in training, compiled.

`loops` holds the loops, forward and backward; `steps` gives them to torch.
"""
