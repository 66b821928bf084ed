"""Names of the columns that Assay writes into tables of predictions and candidates.

Enters: a name. Leaves: whether it is one of Assay's, and the name under which a column of the input
stands beside it. This module does not know who fills a column.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Mapping

from assay.models.potentials.columns import FORMED
from assay.sources.crystals import WARNINGS, set_aside
from assay.sources.table import RESERVED

QUANTILES: Mapping[str, float] = {f"q{k:02d}": k / 100 for k in (1, 5, *range(10, 100, 10), 95, 99)}
"""Share of the predictive distribution below a quantile, by the part of a column's name after that
of the property."""
PARTS: Mapping[str, str] = {
    "mean": "predicted value",
    "std": "calibrated standard deviation",
    "lo": "lower end of the 90 % interval",
    "hi": "upper end of the 90 % interval",
    "disagreement": "difference between vision and graph networks",
    "view_spread": "standard deviation over the views of vision networks",
    **{part: f"{100 * share:.0f} % quantile of the predictive distribution" for part, share in QUANTILES.items()},
}
"""What the columns of a predicted property hold, by the part after its name."""
COMPARED: Mapping[str, str] = {
    "spread": "largest minus smallest reported value among the rows of one crystal",
    "functionals": "functionals behind these values",
}
"""What the columns of a reported property hold where rows of several sources were compared."""
ABOVE_HULL = "energy_above_hull"
"""The property that a hull gives; its columns are named as those of a predicted one."""
SOURCE = "source"
COLUMNS: Mapping[str, str] = {
    "rank": "place in the ranking, from 1",
    "id": "name of the crystal",
    "formula": "reduced formula, the same for every cell of a crystal",
    "elements": "elements in alphabetical order",
    "nsites": "sites in the cell",
    "ordered": "whether every site holds one species at full occupancy",
    SOURCE: "source of the config that delivered the row",
    WARNINGS: "accepted oddities of the file, joined by '; '",
    "in_training": "whether an ensemble learned from a crystal or a formula of this composition",
    "ood": "whether the crystal holds an element that no training crystal held, of any ensemble",
    "ood_distance": "largest distance to the training crystals of any ensemble; 95 % of calibration rows are below 1",
    "tier": "last tier of the cascade that the crystal reached",
    "audit": "whether it was drawn at random from those that were set aside",
    "score": "what ranks",
    "reason": "filter on a prediction that the crystal does not pass, the first in the order of the config",
    "p_top_k": "probability of being among the best rank.top ranked crystals, by their errors; null: not known",
    "front": "number of the front of several objectives, 1: no crystal is better in everything",
    "hypervolume": "what the crystal adds to the hypervolume of its front, where each objective has a range of 1",
    "p_front": "probability of being on the first front, by the errors of all predictions; null: not known",
    "lacks": "objectives of which an unrankable crystal has no finite number",
    "selected": "whether it is on the shortlist of `rank.select`, of which a bounded share is expected to be wrong",
    "conformal_p_value": "share of calibration rows that miss the threshold of `rank.select` and look at least as good",
    "p_stable": "probability of lying near the convex hull or below it, by the error of the predicted energy",
    "competing_phases": "phases of the hull at this composition, with their parts of the atoms; null: none known",
    "ids": "ids of all rows that are this crystal",
    "spacegroup": "number of the space group at 0.1 Å, of the first `rank.top` rows; 0: not found",
    "related_to": "ids of the rows that stand for related crystals, the nearest first",
    "related_distance": "Å, how far each lies: largest displacement of a site, or of the end of the cell",
    "related_volume_ratio": "volume per site of each over that of this row",
}
"""What the other columns hold."""
PULLED = frozenset({SOURCE, WARNINGS, *RESERVED})
"""The columns of Assay that pulled rows have; a column of the input gives way where it is read."""
_PATTERN = re.compile(rf".+_(?:{'|'.join([*PARTS, *COMPARED])}|member_.+)|tier_\d+_score", re.DOTALL)


class _Own:
    """The names that Assay gives to columns, as a set without end."""

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or name in FORMED:
            return False
        return name in COLUMNS or _PATTERN.fullmatch(name) is not None


OWN = _Own()
"""Every name that a column of scored crystals can have: `COLUMNS`, `<property>_<part>`,
`<property>_member_<k>`, `<property>_<compared>` and `tier_<k>_score`; not those of relaxed ones,
which stand in the chunk already."""


def predicted(column: str, name: str) -> bool:
    """Whether a column is one of the columns of the predicted property `name`.

    >>> [predicted(column, "gap") for column in ("gap_mean", "gap_hse_mean", "gap_hse")]
    [True, False, False]
    """
    part = column.removeprefix(f"{name}_")
    return part != column and (part in PARTS or re.fullmatch(r"member_\d+", part) is not None)


def distinct(name: str, taken: Container[str]) -> str:
    """The name, or where it is taken the first of name-2, name-3, ... that is not.

    >>> distinct("tc", {"tc", "tc-2"})
    'tc-3'
    """
    numbered = (f"{name}-{count}" for count in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def reported(name: str) -> str:
    """The name that a column of the input has in a table of Assay.

    A column of the input that is called like one of `PULLED` was set aside when the row was read.

    >>> [reported(name) for name in ("band_gap", "spacegroup", "tc_std", "reported_id")]
    ['band_gap', 'reported_spacegroup', 'reported_tc_std', 'reported_id']
    """
    moved = set_aside(name, OWN)
    return name if set_aside(name, PULLED) != name else moved
