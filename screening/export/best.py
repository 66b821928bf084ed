"""The best candidates of a campaign, with the crystals that were scored.

Enters: the `Results` of a campaign. Leaves: `Best`: the first rows of the ranking, their crystals
in right-handed cells, and the facts that each exported file states. Nothing is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from assay.models.potentials.potential import right_handed
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Summary
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals

Facts = Mapping[str, str | float | None]
LONGEST = 60
"""Characters of a formula in the name of a file."""


@dataclass(frozen=True)
class Best:
    """The n best candidates, best first."""

    table: pa.Table
    """(n rows) every column of `candidates.parquet`, with unit and meaning of each."""
    crystals: Crystals
    """As they were scored, in right-handed cells: the relaxed ones where the campaign relaxed."""
    facts: list[Facts]
    """Of each: rank, id, formula, the property that ranks, its mean and std (None where unknown)
    with their unit, the model, the campaign, and where the cell comes from."""

    def __len__(self) -> int:
        return len(self.facts)

    def stem(self, row: int) -> str:
        """Name of a file without its ending: rank and formula, for any file system."""
        facts, width = self.facts[row], max(3, len(str(self.facts[-1]["rank"])))
        formula = re.sub(r"[^A-Za-z0-9.]", "_", str(facts["formula"]))[:LONGEST].rstrip(".")
        return f"{facts['rank']:0{width}}_{formula}"


def find(results: Results, top: int) -> Best:
    """The `top` best candidates, or all where there are fewer.

    Raises:
        Failure: CONFIG, when the folder holds no ranking, or the ranking no candidate; DISK, when a
            file is not as it was written.
    """
    summary, table = results.summary, results.best(top)
    if not table.num_rows:
        balance = summary.balance
        lost = f"{balance.quarantined:,} are refused (assay errors), {balance.unrankable:,} unrankable"
        lost += f", {balance.excluded:,} excluded (excluded.parquet)" if balance.excluded else ""
        raise Failure(Exit.CONFIG, f"{results.folder} has no candidates: of {balance.unique:,} crystals {lost}")
    name = summary.target.name
    kept = {"rank", "id", "formula", f"{name}_mean", f"{name}_std", "tier"}
    rows = table.select([column for column in table.column_names if column in kept]).to_pylist()
    return Best(table, right_handed(results.crystals(table["id"])), [_facts(row, summary) for row in rows])


def _facts(row: Mapping[str, Any], summary: Summary) -> Facts:
    target, relaxed = summary.target, summary.relaxation
    tier, cascade = row.get("tier", summary.last_tier), summary.cascade
    cheap = cascade is not None and tier < summary.last_tier
    return {
        "rank": row["rank"],
        "id": row["id"],
        "formula": row["formula"],
        "property": target.name,
        "mean": _finite(row[f"{target.name}_mean"]),
        "std": _finite(row[f"{target.name}_std"]),
        "unit": target.unit,
        "model": cascade.tiers[tier].model if cascade is not None and cheap else target.model,
        "campaign": summary.campaign,
        "cell": "as delivered" if relaxed is None else f"relaxed by {relaxed.potential}",
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
