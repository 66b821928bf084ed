"""Files -> predictions, without a campaign.

Enters: paths of crystals and one ensemble. Leaves: one row per crystal in input order, and
quarantine records for the rest. It does not know the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.screening.runners.worker import Part, novelty_columns, prediction_columns, set_up_process
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS
from assay.sources.quarantine import REMEDIES, Quarantined

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble

BLOCK = 512
"""Crystals predicted at once."""


@dataclass(frozen=True)
class Prediction:
    """The outcome for a set of files."""

    crystals: Crystals
    """The predicted crystals, in input order."""
    part: Part
    """Their rows, and everything that was refused."""


def predict(paths: Sequence[Path], ensemble: Ensemble) -> Prediction:
    """Predict every crystal in the files."""
    import pyarrow as pa

    from assay.sources.files import reading

    set_up_process()
    crystals, refused = reading.read_many(paths)
    blocks, rows = [], []
    for start in range(0, max(len(crystals), 1), BLOCK):
        predicted, bad = ensemble.predict(crystals[start : start + BLOCK])
        refused += bad
        rows.append(start + predicted.index)
        every = np.arange(len(predicted.index))
        columns = prediction_columns(predicted, every) | novelty_columns([predicted], [every])
        ids = pa.array(crystals.ids[rows[-1]].astype(object), pa.string())
        blocks.append(pa.table({"id": ids, **columns}))
    return Prediction(crystals.select(np.concatenate(rows)), Part(pa.concat_tables(blocks), refused))


def lines(prediction: Prediction, ensemble: Ensemble, most: int | None = None) -> list[str]:
    """One line for each of the first `most` crystals: formula, mean ± std with the interval, what to beware of."""
    found = []
    table = prediction.part.table
    for position, row in enumerate(table.slice(0, most).to_pylist()):
        crystal = prediction.crystals[position : position + 1]
        values = "  ".join(_value(row, item.name, item.unit) for item in ensemble.properties)
        notes = [*disorder(crystal), *_untested(crystal, ensemble), *_unseen(crystal, ensemble), *_far(row)]
        tail = f"  ({'; '.join(notes)})" if notes else ""
        found.append(f"{row['id']}  {crystal.formulas()[0]}  {values}{tail}")
    left = table.num_rows - len(found)
    return [*found, f"... and {left} more"] if left else found


def write(prediction: Prediction, path: Path) -> None:
    """Write the predictions, and beside them the refused crystals if there are any."""
    from assay.sources import table

    path.parent.mkdir(parents=True, exist_ok=True)
    table.write(prediction.part.table, path)
    if prediction.part.quarantined:
        table.write(table.quarantine_table(prediction.part.quarantined), path.with_suffix(".quarantine.parquet"))


def refusal(row: Quarantined) -> str:
    """One line about a refused crystal: what, why, and what to do."""
    remedy = REMEDIES.get(row.reason, "")
    return f"{row.id}: {row.reason}: {row.message}{'; ' + remedy if remedy else ''}"


def refusals(prediction: Prediction, max_bad: float) -> Iterator[str]:
    """One line about each refused crystal.

    Raises:
        Failure: after the last line, when the refused share is above `max_bad`.
    """
    yield from map(refusal, prediction.part.quarantined)
    bad, good = len(prediction.part.quarantined), prediction.part.table.num_rows
    if bad > max_bad * (bad + good):
        raise Failure(Exit.TOO_MANY_BAD, f"{bad} of {bad + good} crystals could not be predicted, more than --max-bad "
                      f"{max_bad:g}; the reasons are above")  # fmt: skip


def disorder(crystal: Crystals) -> list[str]:
    """What is disordered in a batch of one: `disordered: La/Sr 0.925/0.075 on 2 of 7 sites`."""
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
    """What is on a site, the most of it first: `Cu`, `La/Sr 0.925/0.075`, `Nb/vacant 0.9/0.1`."""
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


def _untested(crystal: Crystals, ensemble: Ensemble) -> list[str]:
    ordered_only = ensemble.facts.get("data", {}).get("disordered") == 0
    return ["the model was trained on ordered crystals only"] if ordered_only and not crystal.is_ordered[0] else []


def _unseen(crystal: Crystals, ensemble: Ensemble) -> list[str]:
    unseen = sorted({SYMBOLS[z] for z in crystal.numbers} - ensemble.elements)
    return [f"outside coverage: no training crystal held {', '.join(unseen)}"] if unseen else []


def _far(row: dict[str, Any]) -> list[str]:
    distance = row.get("ood_distance", 0.0)
    return [f"unlike the training crystals: ood_distance {distance:.2g}"] if distance > 1 else []


def _value(row: dict[str, Any], name: str, unit: str) -> str:
    mean, std, lo, hi = (row[f"{name}_{part}"] for part in ("mean", "std", "lo", "hi"))
    return f"{name} {mean:.4g} ± {std:.2g} [{lo:.4g}, {hi:.4g}] {unit}".rstrip()
