"""The output store: outputs of single members, kept so that they are not computed again."""
