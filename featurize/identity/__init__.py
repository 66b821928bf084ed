"""Finds the crystals that are the same crystal, for example in two databases.

Enters: `Crystals`. Leaves: a fingerprint of distances per crystal, pairs that are to be compared,
pairs that are the same or related, and the row that leads each group of equal rows. A fingerprint
depends on its own crystal only and a comparison on two, so several processes may share the work.
The result depends on the crystals and their ids, not on their order. This package does not know
sources or properties, and does not choose which crystal of a cluster is kept.
"""

from assay.featurize.identity.fingerprint import Fingerprints, fingerprints
from assay.featurize.identity.search import (
    Compared,
    Search,
    confirm,
    find,
    joined,
    nearest_of_groups,
    space_groups,
    stamp,
)

__all__ = [
    "Compared",
    "Fingerprints",
    "Search",
    "confirm",
    "find",
    "fingerprints",
    "joined",
    "nearest_of_groups",
    "space_groups",
    "stamp",
]
