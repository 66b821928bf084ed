"""Formulas -> predictions without a structure, in this process.

Enters: formulas as texts or in a column of tables, and ensembles whose members all read the
composition alone. Leaves: `Predictions`: one row per formula in the order of the input, and a
quarantine record for each text that is no formula.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.featurize.composition import CompositionSpec
from assay.models.ensemble import zoo
from assay.screening.prediction import predict as prediction
from assay.screening.prediction.predict import WITHOUT_STRUCTURE, Predictions
from assay.screening.settings.exits import Exit, Failure
from assay.sources import crystals as batches
from assay.sources.crystals import WARNINGS
from assay.sources.elements import SYMBOLS
from assay.sources.formats import formula_tables
from assay.sources.formulas import placed, read as reader
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources.crystals import Crystals

WRITTEN = "reported_formula"
"""Column with the formula as the input writes it."""
LONGEST_ID = 100
"""Characters of a text that is the id of its formula."""
_ROW = "formula row"
"""Column of the batch with the place of each formula in the input."""


@dataclass(frozen=True)
class Given:
    """`n` texts that should be formulas."""

    texts: list[str]
    ids: list[str]
    """Distinct."""
    origins: list[str]
    """Where each stands."""


def listed(texts: Iterable[str]) -> Given:
    """Formulas that a user lists; the id of each is its text, or `TEXT#2` where it is repeated."""
    every = list(texts)
    for place, text in enumerate(every, 1):
        if not isinstance(text, str):
            raise TypeError(f"formula {place} of {len(every)} is {text!r}, expected a text")
    names = [
        text if text.strip() and text.isprintable() and len(text) <= LONGEST_ID else f"formula/{place}"
        for place, text in enumerate(every, 1)
    ]
    return Given(every, _distinct(names), ["" for _ in every])


def joined(texts: Sequence[str], tables: Sequence[Path], column: str | None) -> Given:
    """Formulas that a user lists, and those in a column of tables after them.

    Raises:
        FileNotFoundError: when a table is missing.
        ValueError: when a table is damaged or has no such column of texts.
    """
    given = listed(texts)
    for path in tables:
        found = formula_tables.read(path, column or "")
        given.texts.extend(found.texts)
        given.ids.extend(found.ids)
        given.origins.extend([str(path)] * len(found.texts))
    return replace(given, ids=_distinct(given.ids))


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, each repetition with its number: `MgB2`, `MgB2#2`."""
    taken: set[str] = set(names)
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = number = seen.get(name, 0) + 1
        one = name
        while number > 1 and (one := f"{name}#{number}") in taken:
            number += 1
        seen[name] = number
        taken.add(one)
        found.append(one)
    return found


def predict(given: Given, ensembles: Sequence[Ensemble]) -> Predictions:
    """Predict formulas; a text that is none is refused, as a crystal that cannot be read is.

    Raises:
        Failure: when an ensemble needs structures, or two would fill the same columns.
    """
    for ensemble in ensembles:
        check(ensemble)
    read = reader.read_many(given.texts)
    amounts = placed.scaled(read.amounts)
    refused = {row: str(error) for row, error in read.refused.items()}
    for row in np.flatnonzero(((amounts > 0) & (amounts < placed.LEAST)).any(axis=1)).tolist():
        lost = [SYMBOLS[number] for number in np.flatnonzero((amounts[row] > 0) & (amounts[row] < placed.LEAST))]
        refused[row] = f"less than {placed.LEAST:g} atoms of {', '.join(lost)} in a formula"
    records = [_record(given, row, refused[row]) for row in sorted(refused)]
    batch = _batch(given, read, amounts, [row for row in range(len(given.texts)) if row not in refused])
    found = prediction.predict(batch, ensembles, records)
    rows = found.crystals.columns[_ROW]
    written = pa.array([given.texts[row] for row in rows.tolist()], pa.string())
    table = found.table.add_column(1, WRITTEN, written)
    return replace(found, crystals=batches.empty(), table=table, atoms=read.amounts[rows])


def _record(given: Given, row: int, message: str) -> Quarantined:
    text = given.texts[row]
    shown = repr(text if len(text) <= 60 else f"{text[:57]}...")
    return Quarantined(given.ids[row], given.origins[row], Stage.PULL, Reason.MALFORMED, f"{shown}: {message}")


def _batch(given: Given, read: reader.Formulas, amounts: NDArray[np.float64], rows: Sequence[int]) -> Crystals:
    notes = ["; ".join([WITHOUT_STRUCTURE, *read.notes.get(row, ())]) for row in rows]
    columns = {
        _ROW: np.array(rows, np.int64),
        WARNINGS: np.array(notes, np.str_),
    }
    return placed.place(np.array([given.ids[row] for row in rows], np.str_), amounts[list(rows)], columns)


def check(ensemble: Ensemble) -> None:
    """Refuse an ensemble that needs structures.

    Raises:
        Failure: when a member reads graphs or pictures; the message names what would work.
    """
    needy = sum(member.kind.family != "composition" for member in ensemble.members)
    if needy:
        fitting = [name for name in zoo.names() if _reads_compositions(zoo.FOLDER / name)]
        bundled = f"bundled: {', '.join(fitting)}" if fitting else "none is bundled"
        raise Failure(
            Exit.CONFIG,
            f"model {ensemble.name} predicts no formulas: {needy} of its {len(ensemble.members)} members read the "
            f"structure; choose one whose members all read the composition ({bundled}), or give crystals",
        )


def _reads_compositions(folder: Path) -> bool:
    names = json.loads((folder / "ensemble.json").read_text())["members"]
    return all(CompositionSpec.KEY in json.loads((folder / name / "model.json").read_text()) for name in names)
