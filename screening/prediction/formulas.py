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
from assay.screening.settings.names import COLUMNS
from assay.sources import crystals as batches
from assay.sources.crystals import WARNINGS, text_array
from assay.sources.elements import SYMBOLS, reduced_formulas
from assay.sources.formats import formula_tables
from assay.sources.formulas import placed, read as reader
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.storage.own import WRITTEN

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble

LONGEST_ID = 100
"""Characters of a text that is the id of its formula."""


DISTINCT = 2**14
"""Distinct formulas whose amounts are in memory at once."""


class OfFormulas(Predictions):
    """What one or several ensembles predict for some formulas, without a structure."""

    @property
    def noun(self) -> str:
        """What was predicted."""
        return "formulas"

    @property
    def atoms(self) -> NDArray[np.float64]:
        """(n, 119) atoms of each element, by atomic number, in the formulas as they are written."""
        return reader.read_many(self.table[WRITTEN].to_pylist()).amounts

    def formulas(self) -> NDArray[np.str_]:
        """(n,) reduced formulas."""
        texts = self.table[WRITTEN].combine_chunks().dictionary_encode()
        distinct = texts.dictionary.to_pylist()
        blocks = [distinct[start : start + DISTINCT] for start in _starts(distinct)]
        found = [reduced_formulas(reader.read_many(block).amounts) for block in blocks]
        return np.asarray(np.concatenate(found)[texts.indices.to_numpy()])


def _starts(distinct: Sequence[str]) -> range:
    """Where each block of some texts begins; there is one at least."""
    return range(0, max(len(distinct), 1), DISTINCT)


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

    A text that comes again is read and predicted once.

    Raises:
        Failure: when an ensemble needs structures, or two would fill the same columns.
    """
    for ensemble in ensembles:
        check(ensemble)
    number: dict[str, int] = {}
    places = np.array([number.setdefault(text, len(number)) for text in given.texts], np.int64)
    distinct = list(number)
    blocks = [_predicted(distinct[start : start + DISTINCT], start, ensembles) for start in _starts(distinct)]
    refused = {int(row.id): row for block in blocks for row in block.refused}
    content = pa.concat_tables([block.table for block in blocks], promote_options="default")
    at = np.full(len(distinct), -1)
    at[np.array(content["id"].to_pylist(), np.int64)] = np.arange(content.num_rows)
    rows = np.flatnonzero(at[places] >= 0)
    table = content.take(pa.array(at[places[rows]]))
    for column, name, texts in ((0, "id", given.ids), (1, WRITTEN, given.texts)):
        values = pa.array([texts[row] for row in rows.tolist()], pa.string())
        field = pa.field(name, pa.string(), metadata={"unit": "", "meaning": COLUMNS.get(name, "")})
        table = table.set_column(0, field, values) if not column else table.add_column(column, field, values)
    lost = np.flatnonzero(at[places] < 0).tolist()
    bad = [replace(refused[places[row]], id=given.ids[row], origin=given.origins[row]) for row in lost]
    return OfFormulas(batches.empty(), table, bad, blocks[0].properties)


def _predicted(texts: Sequence[str], first: int, ensembles: Sequence[Ensemble]) -> Predictions:
    """The predictions of some texts; the id of each is its number, counted from `first`."""
    read = reader.read_many(texts)
    amounts = placed.scaled(read.amounts)
    refused = {row: str(error) for row, error in read.refused.items()}
    for row in np.flatnonzero(((amounts > 0) & (amounts < placed.LEAST)).any(axis=1)).tolist():
        lost = [SYMBOLS[number] for number in np.flatnonzero((amounts[row] > 0) & (amounts[row] < placed.LEAST))]
        refused[row] = f"less than {placed.LEAST:g} atoms of {', '.join(lost)} in a formula"
    records = [_record(texts[row], first + row, refused[row]) for row in sorted(refused)]
    rows = [row for row in range(len(texts)) if row not in refused]
    ids = text_array([str(first + row) for row in rows])
    notes = text_array(["; ".join([WITHOUT_STRUCTURE, *read.notes.get(row, ())]) for row in rows])
    return prediction.predict(placed.place(ids, amounts[rows], {WARNINGS: notes}), ensembles, records, placeless=True)


def _record(text: str, number: int, message: str) -> Quarantined:
    shown = repr(text if len(text) <= 60 else f"{text[:57]}...")
    return Quarantined(str(number), "", Stage.PULL, Reason.MALFORMED, f"{shown}: {message}")


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
