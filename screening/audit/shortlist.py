"""The shortlist of a campaign, made again from its outputs and the rows its ensemble kept.

Enters: the results of a folder whose outputs are as they were written, and its ensembles. Leaves:
defects in words. It does not know how a campaign ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.folder.results import Results
from assay.screening.ranking import select
from assay.screening.ranking.select import P_VALUE, SELECTED
from assay.sources import table

MARKS = (SELECTED, P_VALUE)
COUNTED = ("ood", "ood_distance", "in_training", "tier")


def wrong(results: Results, ensembles: Sequence[Ensemble], scored: int) -> Iterator[tuple[str, str]]:
    """(file, defect) of a shortlist; `scored` crystals are its tests, by the log.

    Raises:
        Failure: CONFIG, when the ensemble that ranks is not among these, or keeps no rows.
    """
    summary = results.summary
    shortlist = select.find(ensembles, summary.rank, summary.target)
    if shortlist is None:
        return
    shortlist.learn(table.schema(results.folder / "candidates.parquet").empty_table(), tests=scored)
    for name in ("candidates.parquet", "unrankable.parquet"):
        for portion in results.portions(name, {*shortlist.reads, "tier"}):
            last = portion
            if "tier" in portion.column_names:
                last = portion.filter(pa.array(portion["tier"].to_numpy() == summary.last_tier))
            shortlist.learn(last, tests=0)
    same = dict.fromkeys(MARKS, True)
    for portion in results.portions("candidates.parquet", {*shortlist.reads, *COUNTED, *MARKS}):
        made = shortlist.marked(portion.drop_columns([*MARKS]), summary.last_tier)
        same = {name: same[name] and made[name].equals(portion[name]) for name in MARKS}
    for name in (name for name in MARKS if not same[name]):
        yield "candidates.parquet", f"has a column {name} that does not follow from the calibration rows"
    if shortlist.summary() != summary.selection:
        yield "summary.json", f"counts another shortlist ({summary.selection}) than there is ({shortlist.summary()})"
