"""The output store: what single members said of a batch of crystals, kept so that it is not computed again."""
