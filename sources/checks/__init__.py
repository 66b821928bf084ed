"""Checks of crystals with unchecked values: sites, shares of sites, texts, warnings on rows.

`assay.sources.sift` and `assay.sources.assemble` use them; nothing else should.
"""
