"""Finds the crystals that are the same crystal, for example in two databases.

Enters: `Crystals`. Leaves: a label of symmetry and composition per crystal, blocks of crystals that
may be the same, pairs that are the same or related, and the clusters that equal pairs form. A label
depends on its own crystal only, so several processes may share the work. Geometry, which is
expensive, is compared inside a block only. The result depends on the crystals and their ids, not on
their order. This package does not know sources or properties, and does not choose which crystal of
a cluster is kept.
"""

from assay.sources.identity.clustering import clusters
from assay.sources.identity.labelling import LABELS, blocks, labels
from assay.sources.identity.search import Compared, confirm, stamp

__all__ = ["LABELS", "Compared", "blocks", "clusters", "confirm", "labels", "stamp"]
