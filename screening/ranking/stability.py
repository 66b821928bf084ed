"""How far scored crystals lie above the convex hull of known phases, with what error.

Enters: scored rows with a formation energy, their compositions, and a hull. Leaves: the
rows with the columns `energy_above_hull_...`, `p_stable` and `competing_phases`. The error is that
of the predicted energy, shifted with it: the phases of the hull count as exact. This module does
not know campaigns, nor where the phases of the hull come from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.stability.hull import Hull
from assay.screening.folder.summary import Stability, Target
from assay.screening.ranking.rules import PARTS, Probability
from assay.screening.settings.choice import Rank
from assay.screening.settings.names import ABOVE_HULL as NAME, COLUMNS, PARTS as MEANINGS, QUANTILES

MEAN = f"{NAME}_mean"
UNIT = "eV/atom"


@dataclass(frozen=True)
class Judge:
    """A hull, the energies that are compared with it, and the threshold of `p_stable`."""

    hull: Hull
    energy: Target
    """The formation energy, predicted by an ensemble or from a force field."""
    threshold: float
    """eV/atom above the hull."""

    @property
    def _parts(self) -> tuple[str, ...]:
        return (*PARTS, *(QUANTILES if self.energy.distribution else ()))

    @property
    def reads(self) -> list[str]:
        """Columns of the scored rows that are needed."""
        return [f"{self.energy.name}_{part}" for part in self._parts]

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that are added, with unit and meaning."""
        meaning = f"of {self.energy.name} by {self.energy.model} less the energy of the hull at this composition"
        bound = f"at most {self.threshold:g} {UNIT} above the hull"
        return [
            *(_field(f"{NAME}_{part}", pa.float64(), UNIT, f"{MEANINGS[part]} {meaning}") for part in self._parts),
            _field("p_stable", pa.float64(), "1", f"{COLUMNS['p_stable']}: {bound}"),
            _field("competing_phases", pa.string(), "", COLUMNS["competing_phases"]),
        ]

    def judged(self, rows: pa.Table, amounts: NDArray[np.float64], wanted: Collection[str] | None = None) -> pa.Table:
        """The rows with the added columns, or those of them that are `wanted`.

        Compositions are (n, 119). A row with an element that no phase of the hull holds has NaN
        there, and no competing phases.
        """
        found = self.hull.mixtures(amounts)
        shift = {"std": np.where(np.isnan(found.energy), np.nan, 0.0)}  # the phases of the hull are exact
        values = {
            part: np.asarray(rows[column].to_numpy(), np.float64) - shift.get(part, found.energy)
            for part, column in zip(self._parts, self.reads)
        }
        for field in self.fields:
            if wanted is not None and field.name not in wanted:
                continue
            if field.name == "competing_phases":
                column = pa.array(self.hull.texts(found), pa.string())
            elif field.name == "p_stable":
                column = pa.array(self._rule.score(values))
            else:
                column = pa.array(values[field.name.removeprefix(f"{NAME}_")])
            rows = rows.append_column(field, column)
        return rows

    @property
    def _rule(self) -> Probability:
        settings = Rank(by="probability", threshold=self.threshold, order="ascending")
        return Probability(settings, as_target(self.energy))


def as_target(energy: Target) -> Target:
    """The energy above the hull as what ranks, where it comes from this formation energy."""
    return replace(energy, name=NAME, unit=UNIT, derived_from=energy.name)


def lines(found: Stability) -> list[str]:
    """The crystals beside the hull in sentences."""
    settings = found.settings
    where = "reported by the sources of this campaign" if settings.reported() else f"of {settings.hull}"
    refused = f", {found.refused:,} of which have no energy or are no sound crystal" if found.refused else ""
    hull = f"The hull is that of {found.phases:,} phases {where}{refused}."
    gives = "gives the relaxed crystals" if settings.energy == "potential" else "predicts"
    scale = f"Their energies and those that {found.model} {gives} are {found.functional}."
    near = (
        f"{found.near:,} of {found.judged:,} crystals lie at most {settings.threshold:g} {UNIT} above the hull, or "
        "below it, by the predicted value."
    )
    sentences = [f"{hull} {scale}", near]
    if found.unknown:
        what = "hold an element that no phase of the hull holds, so their energy above it is not a number (NaN)"
        sentences.append(f"{found.unknown:,} {what}.")
    return sentences


def _field(name: str, kind: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "meaning": meaning})
