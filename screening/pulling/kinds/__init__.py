"""One file per kind of source; `assay.screening.settings.sources` lists them.

Enters: a section of the config. Leaves: crystals, by way of `assay.screening.pulling.database` or
`assay.screening.pulling.local`.
"""
