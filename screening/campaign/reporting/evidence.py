"""What a report shows beside the rows of its table: structures, and what the ensemble rests on.

Enters: a plan, the ledger of its folder, and the best rows. Leaves: `Evidence`. This module does
not draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.ensemble.stored import HeldRows
from assay.screening.campaign.plan import Plan
from assay.screening.folder import results
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.runners.worker import one_thread
from assay.sources import table
from assay.sources.crystals import Crystals, empty

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble

DETAILED = 100
"""Most candidates whose structure a report shows."""
REPORTED = "", "_per_atom"
"""Endings of columns that sources report, after the name of a predicted property."""

Pairs = Callable[[], Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]]


@dataclass(frozen=True)
class Landscape:
    """Crystals in the two directions along which the embedding of training varies most."""

    known: NDArray[np.float64]
    """(r, 2) training crystals; 1 is an `ood_distance` of 1."""
    found: NDArray[np.float64]
    """(n, 2) the candidates, in their order."""
    share: float
    """Share of the variance of the embedding that lies in these directions."""


@dataclass(frozen=True)
class Evidence:
    """What stands behind the best rows; empty where there is none."""

    crystals: Crystals = field(default_factory=empty)
    """Structures of the first rows, in their order."""
    held: HeldRows | None = None
    """Calibration rows of the property that ranks."""
    out_of_fold: bool = False
    """Whether they were predicted by members that learned from other rows."""
    reported: str = ""
    """Column with the values that sources report for the property that ranks."""
    pairs: Pairs | None = None
    """(reported, predicted) values of the candidates whose composition was not learned."""
    landscape: Landscape | None = None


def gather(plan: Plan, ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> Evidence:
    """All of it, from the folder of a campaign whose `candidates.parquet` is written."""
    ids = [row["id"] for row in rows[:DETAILED]]
    crystals = Results(plan.folder, ledger).crystals(ids) if ids else empty()
    target = plan.target
    ensemble = next((one for one in plan.ensembles if one.name == target.model), None)
    path = plan.folder / "candidates.parquet"
    reported = _reported(path, target.name)
    kept = None if ensemble is None else ensemble.calibration_rows
    return Evidence(
        crystals,
        None if kept is None else kept.rows.get(target.name),
        kept is not None and kept.out_of_fold,
        reported,
        partial(_pairs, path, reported, f"{target.name}_mean") if reported else None,
        landscape(ensemble, crystals) if ensemble is not None and len(crystals) else None,
    )


def landscape(ensemble: Ensemble, crystals: Crystals) -> Landscape | None:
    """Training crystals and these ones on a map.

    None where the ensemble keeps no embedding, or cannot read one of the crystals, which a cheap
    tier of a cascade ranked.
    """
    if ensemble.reference is None:
        return None
    try:
        with one_thread():  # the last bits must not depend on the machine's cores
            found = ensemble.embed(crystals)
    except ValueError:
        return None
    known = ensemble.reference.points.astype(np.float64) / ensemble.reference.limit
    middle = known.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov((known - middle).T))
    first = directions[:, :-3:-1]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), [0, 1]])  # eigenvectors have no sign of their own
    share = float(variance[-2:].sum() / variance.sum())
    return Landscape((known - middle) @ first, (found - middle) @ first, share)


def _reported(path: Path, name: str) -> str:
    """The column of reported values of a predicted property; "" where there is none."""
    kinds = table.kinds(table.schema(path))
    return next((name + end for end in REPORTED if kinds.get(name + end) == "number"), "")


def _pairs(path: Path, reported: str, mean: str) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    learned = "in_training"
    wanted = [name for name in (reported, mean, learned) if name in table.schema(path).names]
    for portion in results.portions(path, wanted):
        rows = portion.filter(pa.compute.invert(portion[learned])) if learned in wanted else portion
        yield rows[reported].to_numpy().astype(np.float64), rows[mean].to_numpy().astype(np.float64)
