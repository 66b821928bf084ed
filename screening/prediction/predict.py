"""Crystals -> predictions, in this process.

Enters: crystals and one or several ensembles. Leaves: `Predictions`: one row per crystal in the
order of the input, and a quarantine record for each crystal that could not be predicted.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.ensemble import zoo
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.prediction import columns
from assay.screening.runners.worker import (
    learned_column,
    novelty_columns,
    prediction_columns,
    seen_by,
    set_up_process,
    warned,
)
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.screening.settings.names import COLUMNS
from assay.screening.settings.printable import escaped
from assay.sources.crystals import GIVEN, WARNINGS

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from assay.featurize.standard import Standard
    from assay.models.ensemble.summary import EnsemblePrediction
    from assay.models.target import Property
    from assay.sources.crystals import Crystals
    from assay.sources.quarantine import Quarantined

CRYSTALS = "crystals"
BLOCK = 512
"""Crystals predicted at once."""
SHOWN = 20
"""Crystals that a printed table shows."""
VALUES = ("mean", "std", "lo", "hi")
WITHOUT_STRUCTURE = "predicted from the formula alone, without a structure"
"""What the column `warnings` says of such a prediction."""


@dataclass(frozen=True, repr=False)
class Predictions:
    """What one or several ensembles predict for some crystals."""

    crystals: Crystals
    """The n predicted crystals, in the order of the input; none where formulas were predicted."""
    table: pa.Table
    """(n rows) `id`; per property `_mean`, `_std`, `_lo`, `_hi` and one `_member_<k>` per member,
    in the unit of the property; `in_training`, `ood` and `ood_distance`; `id_prop_<k>`, where an
    `id_prop.csv` gives values; `warnings`, where a crystal has some. The metadata of each field
    has its unit and meaning, and the functional of a predicted property where the card of the
    ensemble names one."""
    refused: list[Quarantined]
    """One record per crystal that could not be read or predicted: stage, reason, message."""
    properties: Sequence[Property] = field(repr=False)
    """The predicted properties, with their units, by their names in the table."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def noun(self) -> str:
        """What was predicted: `crystals` or `formulas`."""
        return CRYSTALS

    @property
    def atoms(self) -> NDArray[np.float64] | None:
        """(n, 119) atoms of each element, by atomic number, of formulas; None for crystals."""
        return None

    def formulas(self) -> NDArray[np.str_]:
        """(n,) reduced formulas."""
        return self.crystals.formulas()

    def part(self, start: int, end: int) -> Predictions:
        """Some of the rows alone, whose formulas are soon written."""
        return replace(self, crystals=self.crystals[start:end], table=self.table[start:end])

    def to_arrow(self) -> pa.Table:
        """`table`, for Arrow."""
        return self.table

    def with_formulas(self) -> pa.Table:
        """`table`, with the formula of each crystal behind its id: what a file needs."""
        field = pa.field("formula", pa.string(), metadata={"unit": "", "meaning": COLUMNS["formula"]})
        return self.table.add_column(1, field, pa.array(self.formulas().astype(object), pa.string()))

    def to_polars(self) -> pl.DataFrame:
        """`table`, for polars."""
        import polars as pl  # 0.2 s that printing a prediction need not wait for

        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self) -> Any:
        """`table`, as a `pandas.DataFrame`.

        Raises:
            ImportError: where pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise ImportError("to_pandas needs pandas: pip install pandas; to_polars needs nothing more")
        return self.table.to_pandas()

    def __str__(self) -> str:
        rows = [self._head(), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self._foot()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The table of a notebook."""
        head, *body = [[html.escape(text) for text in row] for row in (self._head(), *self._rows())]
        rows = [f"<tr>{''.join(f'<td>{text}</td>' for text in row)}</tr>" for row in body]
        top = f"<tr>{''.join(f'<th>{text}</th>' for text in head)}</tr>"
        foot = "".join(f"<p>{html.escape(line)}</p>" for line in self._foot())
        return f"<table><thead>{top}</thead><tbody>{''.join(rows)}</tbody></table>{foot}"

    def _head(self) -> list[str]:
        return ["id", "formula", *(item.label for item in self.properties), "ood"]

    def _rows(self) -> list[list[str]]:
        shown = self.table.slice(0, SHOWN).to_pylist()
        formulas = self.part(0, len(shown)).formulas().tolist()
        return [
            [
                escaped(row["id"]),
                formula,
                *(value(row, item.name) for item in self.properties),
                "yes" if row["ood"] else "",
            ]
            for row, formula in zip(shown, formulas, strict=True)
        ]

    def _foot(self) -> list[str]:
        left = len(self) - SHOWN
        lines = [f"... and {left:,} more"] if left > 0 else []
        warned = sum(map(bool, warnings_of(self.crystals)))
        lines += [f"{warned:,} read with warnings, see the column {WARNINGS}"] if warned else []
        lines += [WITHOUT_STRUCTURE] if self.noun != CRYSTALS and len(self) else []
        return lines + ([f"{len(self.refused):,} refused, see .refused"] if self.refused else [])


def value(row: dict[str, Any], name: str) -> str:
    """The prediction of a property in one row: `3.2 ± 1.1 [0.4, 9.8]`."""
    return digits.interval(*(row[f"{name}_{part}"] for part in VALUES))


def load(folder: Path | str, precision: str | None = None) -> Ensemble:
    """Load an ensemble from its folder, or a bundled one by its name.

    Raises:
        TypeError: for anything but a path or a name.
        FileNotFoundError: when there is no such folder or name.
        Failure: when the folder is damaged.
    """
    if not isinstance(folder, str | PathLike):
        raise TypeError(f"model is {folder!r}, expected a loaded ensemble, the name of a bundled one, or a folder")
    try:
        return Ensemble.load(zoo.find(folder), precision)
    except FileNotFoundError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise Failure(
            Exit.CONFIG, f"model folder {folder} is damaged ({cause}); copy the whole folder again"
        ) from error


def predict(
    crystals: Crystals,
    ensembles: Sequence[Ensemble],
    refused: Sequence[Quarantined] = (),
    standard: Standard | None = None,
    *,
    placeless: bool = False,
) -> Predictions:
    """Predict crystals; `refused` are the records of those that could not be read.

    The ensembles see the crystals in `standard` cells, or in those in which they came. A crystal
    that any of the ensembles refuses is refused, as in a campaign. Places that mean nothing, those
    of formulas, are `placeless`.

    Raises:
        Failure: when two ensembles would fill the same columns.
    """
    set_up_process()
    names = columns.named(ensembles)
    lost = list(refused)
    blocks, rows = [], []
    for start in range(0, max(len(crystals), 1), BLOCK):
        block = crystals[start : start + BLOCK]
        seen = seen_by(ensembles, block, standard)
        outcomes = [ensemble.predict(part) for ensemble, part in zip(ensembles, seen, strict=True)]
        lost += list({row.id: row for _, bad in reversed(outcomes) for row in bad}.values())
        good = reduce(np.intersect1d, [predicted.index for predicted, _ in outcomes])
        ids = pa.array(block.ids[good].astype(object), pa.string())
        places = [np.searchsorted(predicted.index, good) for predicted, _ in outcomes]
        learned = learned_column(ensembles, block.select(good).formulas())
        novelty = novelty_columns([predicted for predicted, _ in outcomes], places)
        values = _values([predicted for predicted, _ in outcomes], names, places)
        blocks.append(pa.table({"id": ids, **values, **learned, **novelty}))
        rows.append(start + good)
    kept, content = crystals.select(np.concatenate(rows)), pa.concat_tables(blocks)
    for name in given(kept):
        content = content.append_column(name, pa.array(kept.columns[name], pa.float64()))
    kept = kept if placeless else warned(kept, ensembles)
    warnings = warnings_of(kept)
    if any(warnings):
        content = content.append_column(WARNINGS, pa.array(warnings, pa.string()))
    properties = [item for own in names for item in own]
    return Predictions(
        kept, columns.described(content, properties, columns.functionals(ensembles, names)), lost, properties
    )


def _values(
    outcomes: Sequence[EnsemblePrediction], names: Sequence[Sequence[Property]], places: Sequence[NDArray[np.int64]]
) -> dict[str, NDArray[Any]]:
    """The columns of the rows that all ensembles predicted, at these places of each."""
    found: dict[str, NDArray[Any]] = {}
    for predicted, own, at in zip(outcomes, names, places, strict=True):
        values = {item.name: value for item, value in zip(own, predicted.values.values(), strict=True)}
        found |= prediction_columns(replace(predicted, values=values), at)
    return found


def given(crystals: Crystals) -> list[str]:
    """Names of the columns of values that an `id_prop.csv` gave."""
    return [name for name, column in crystals.columns.items() if name.startswith(GIVEN) and column.dtype.kind == "f"]


def warnings_of(crystals: Crystals) -> list[str]:
    """The text in the column `warnings` of each crystal; "" where it has none."""
    stated = crystals.columns.get(WARNINGS)
    if stated is None or stated.dtype.kind not in "UO" or stated.ndim > 1:  # set by a caller to something else
        return [""] * len(crystals)
    return [str(text) for text in stated.tolist()]
