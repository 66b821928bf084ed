"""Predictions as lines of text, with what limits them.

Enters: predictions and the ensembles that made them. Leaves: one line per crystal: formula, mean ±
std with the interval, disorder, unseen elements, distance from the training crystals, warnings of
the reader; and one line about the errors where values are given. Lines about refused crystals name
the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.screening.prediction.predict import BLOCK, CRYSTALS, given, value
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.sources.crystals import WARNINGS
from assay.sources.elements import SYMBOLS
from assay.sources.quarantine import REMEDIES, Quarantined, Reason

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.screening.prediction.predict import Predictions
    from assay.sources.crystals import Crystals

OF_FORMULAS = REMEDIES | {
    Reason.MALFORMED: "",  # the message says it
    Reason.PREDICTION_FAILED: "report this as a defect, with the formula",
}
"""Advice to the user for each reason that a formula is refused for."""


def lines(predictions: Predictions, ensembles: Sequence[Ensemble], most: int | None = None) -> Iterator[str]:
    """One line for each of the first `most` crystals: formula, mean ± std, interval, notes."""
    shown = min(len(predictions), len(predictions) if most is None else most)
    for start in range(0, shown, BLOCK):
        yield from _lines(predictions.part(start, min(start + BLOCK, shown)), ensembles)
    if left := len(predictions) - shown:
        yield f"... and {left} more"


def notes(some: Predictions, ensembles: Sequence[Ensemble]) -> Iterator[list[str]]:
    """What limits each prediction: disorder, unseen elements, distance from training crystals."""
    atoms = some.atoms
    for position, row in enumerate(some.table.to_pylist()):
        if atoms is None:
            found = _of_crystal(some.crystals[position : position + 1], ensembles)
        else:
            found = _of_elements(np.flatnonzero(atoms[position]), ensembles)
        whose = " (of one model at least)" if len(ensembles) > 1 else ""
        learned = ["composition in training"] if row.get("in_training") else []
        yield found + [said + whose for said in [*learned, *_far(row)]]


def _lines(some: Predictions, ensembles: Sequence[Ensemble]) -> Iterator[str]:
    rows = zip(some.table.to_pylist(), some.formulas().tolist(), notes(some, ensembles), strict=True)
    columns = given(some.crystals)
    for row, formula, found in rows:
        values = "  ".join(f"{p.name} {value(row, p.name)} {p.unit}".rstrip() for p in some.properties)
        said = [*_given(row, columns), *found, *([f"warning: {one_line(row[WARNINGS])}"] if row.get(WARNINGS) else [])]
        tail = f"  ({'; '.join(said)})" if said else ""
        yield f"{row['id']}  {formula}  {values}{tail}"


def _of_crystal(crystal: Crystals, ensembles: Sequence[Ensemble]) -> list[str]:
    notes = disorder(crystal)
    for ensemble in ensembles:
        ordered_only = ensemble.facts.get("data", {}).get("disordered") == 0
        if ordered_only and not crystal.is_ordered[0]:
            notes.append(_name(ensemble, ensembles) + "the model was trained on ordered crystals only")
        notes += _of_elements(crystal.numbers, [ensemble], _name(ensemble, ensembles))
    return notes


def _of_elements(numbers: NDArray[Any], ensembles: Sequence[Ensemble], name: str | None = None) -> list[str]:
    found = []
    for ensemble in ensembles:
        unseen = sorted({SYMBOLS[z] for z in numbers} - ensemble.elements)
        own = _name(ensemble, ensembles) if name is None else name
        found += [f"{own}outside coverage: no training crystal held {', '.join(unseen)}"] if unseen else []
    return found


def _name(ensemble: Ensemble, ensembles: Sequence[Ensemble]) -> str:
    return f"{ensemble.name}: " if len(ensembles) > 1 else ""


def _given(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The values of a crystal in an `id_prop.csv`, as in `given 39`."""
    values = [digits.alone(row[name]) for name in names if not math.isnan(row[name])]
    return [f"given {', '.join(values)}"] if values else []


def compared(predictions: Predictions) -> Iterator[str]:
    """A line about the errors, where one property was predicted and one value of each is given."""
    names, properties = given(predictions.crystals), predictions.properties
    if len(names) != 1 or len(properties) != 1:
        return
    table, name, unit = predictions.table, properties[0].name, properties[0].unit
    known = table[names[0]].to_numpy()
    rows = np.flatnonzero(np.isfinite(known))
    if not len(rows):
        return
    mean, low, high = (table[f"{name}_{part}"].to_numpy()[rows] for part in ("mean", "lo", "hi"))
    error = mean - known[rows]
    inside = int(((low <= known[rows]) & (known[rows] <= high)).sum())
    learned = table["in_training"].to_numpy()[rows].sum() if "in_training" in table.column_names else 0
    tail = f"; the ensemble learned from {learned:,} of these compositions" if learned else ""
    yield (
        f"{name} beside {names[0]} of {len(rows):,} crystals: MAE {digits.alone(np.abs(error).mean())} {unit}, "
        f"mean error {digits.alone(error.mean())} {unit}, {inside:,} in their intervals{tail}"
    )


def refusal(row: Quarantined, remedies: Mapping[Reason, str] = REMEDIES) -> str:
    """One line about a refused crystal: its id, the reason and the remedy."""
    remedy = remedies.get(row.reason, "")
    return f"{row.id}: {row.reason}: {row.message}{'; ' + remedy if remedy else ''}"


def refusals(
    rows: Sequence[Quarantined], predicted: int, max_bad: float, noun: str = CRYSTALS, done: str = "predicted"
) -> Iterator[str]:
    """One line about each refused crystal or formula; `predicted` is the number of the others.

    Raises:
        Failure: after the last line, when the refused share is above `max_bad`.
    """
    remedies = REMEDIES if noun == CRYSTALS else OF_FORMULAS
    yield from (refusal(row, remedies) for row in rows)
    bad, total = len(rows), len(rows) + predicted
    if bad > max_bad * total:
        message = f"{bad} of {total} {noun} could not be {done}, more than --max-bad {max_bad:g}"
        raise Failure(Exit.TOO_MANY_BAD, f"{message}; the reasons are above")


def disorder(crystal: Crystals) -> list[str]:
    """The disorder of a batch of one, as in `disordered: La/Sr 0.925/0.075 on 2 of 7 sites`."""
    kinds: dict[str, int] = {}
    for site in range(len(crystal.frac)):
        shares = crystal.occupancy[crystal.species_ptr[site] : crystal.species_ptr[site + 1]]
        if len(shares) > 1 or shares[0] < 1 - 1e-5:
            text = species(crystal, site)
            kinds[text] = kinds.get(text, 0) + 1
    if not kinds:
        return []
    total = len(crystal.frac)
    return ["disordered: " + ", ".join(f"{text} on {n} of {total} sites" for text, n in kinds.items())]


def species(crystal: Crystals, site: int) -> str:
    """The species of a site by share: `Cu`, `La/Sr 0.925/0.075`, `Nb/vacant 0.9/0.1`."""
    held = slice(crystal.species_ptr[site], crystal.species_ptr[site + 1])
    shares = crystal.occupancy[held]
    order = np.argsort(-shares, kind="stable")
    names: list[str] = [SYMBOLS[z] for z in crystal.numbers[held][order]]
    if len(names) == 1 and shares[0] >= 1 - 1e-5:
        return names[0]
    amounts = [f"{share:.4g}" for share in shares[order]]
    vacant = 1 - float(shares.sum())
    if vacant > 1e-4:
        names, amounts = [*names, "vacant"], [*amounts, f"{vacant:.3g}"]
    return f"{'/'.join(names)} {'/'.join(amounts)}"


def _far(row: dict[str, Any]) -> list[str]:
    distance = row.get("ood_distance", 0.0)
    return [f"unlike the training crystals: ood_distance {digits.alone(distance)}"] if distance > 1 else []
