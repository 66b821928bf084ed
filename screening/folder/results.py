"""The results of a campaign, read from its folder.

Enters: a campaign folder; another process may be writing to it. Leaves: the summary, Arrow tables
of candidates, refused crystals and predictions, and the crystals themselves. Every file is compared
with the digest in the log before it is believed. Nothing is written, and nothing is ranked here.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.screening.folder import snapshot, stamp, summary as summaries
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.summary import Summary
from assay.screening.settings import digits, nearest
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import SOURCE
from assay.screening.settings.printable import escaped
from assay.sources import table
from assay.sources.crystals import WARNINGS, Crystals, empty

STALE = "older than the last record of the log"
SHOWN = 10
"""Candidates shown by default."""
PORTION = 2**15
"""Rows of an output in memory at once, where it is not asked for as a whole."""
BUFFER = 2**18
"""Bytes of a column that are read from a file at once."""


@dataclass(frozen=True)
class Candidate:
    """One row of the ranking, as people look at it first; numbers in the unit of the property."""

    rank: int
    id: str
    formula: str
    mean: float
    std: float
    low: float
    """Lower end of the calibrated interval."""
    high: float
    """Upper end of the calibrated interval."""
    marks: tuple[str, ...]
    """Reasons for doubt: new element, unlike training, tier 0 only, read with warnings; the rank
    of a related crystal further up."""


class Results:
    """What a campaign found.

    Tables are pyarrow Tables. `columns` names those to read;
    unset: all.

    Raises:
        Failure: CONFIG, when the folder is no campaign folder, or holds no such result yet; DISK,
            when a file is not as it was written. The message says what to do.
    """

    def __init__(self, folder: Path | str, ledger: Ledger | None = None) -> None:
        """`ledger` is that of the folder, where it is read already."""
        self.folder = Path(folder)
        stamp.expect(self.folder)
        self.ledger = Ledger(self.folder) if ledger is None else ledger

    @property
    def ranked(self) -> bool:
        """Whether there are candidates."""
        return self.ledger.find("ranked", "all") is not None

    @property
    def stale(self) -> bool:
        """Whether the log went on after the ranking, so that the outputs may lack something."""
        record = self.ledger.find("ranked", "all")
        return record is not None and record.sequence != len(self.ledger) - 1

    @cached_property
    def summary(self) -> Summary:
        """The campaign in numbers: balance, sources, models, the property that ranks, digests."""
        path = self._whole("summary.json")
        try:
            return summaries.parse(path.read_bytes())
        except ValueError as error:
            raise Failure(
                Exit.CONFIG, f"{path} was made by another version of Assay ({error}); {self.again()}"
            ) from None

    def candidates(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every ranked crystal, best first."""
        return table.read(self._whole("candidates.parquet"), columns)

    def outputs(self, name: str = "candidates.parquet") -> Path:
        """The path of an output file that is as the ranking wrote it, for readers of Parquet."""
        return self._whole(name)

    def best(self, most: int = SHOWN) -> pa.Table:
        """The first `most` rows of the ranking, with every column; memory holds no others."""
        path = self._whole("candidates.parquet")
        schema = table.schema(path)
        found = [schema.empty_table()]
        for portion in portions(path, schema.names):
            found.append(portion.slice(0, most))
            most -= len(found[-1])
            if most <= 0:
                break
        return pa.concat_tables(found)

    def unrankable(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Crystals whose prediction is not a finite number, by id."""
        return table.read(self._whole("unrankable.parquet"), columns)

    def excluded(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Crystals that a filter on predictions excluded, by id, each with its `reason`."""
        if "excluded.parquet" not in self._ranked().files:
            raise Failure(Exit.CONFIG, f"{self.folder} was ranked without filters.predicted, which exclude crystals")
        return table.read(self._whole("excluded.parquet"), columns)

    def quarantine(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Refused crystals by id, each with stage, reason, message and origin."""
        return table.read(self._whole("quarantine.parquet"), columns)

    def portions(self, name: str, columns: Container[str]) -> Iterator[pa.Table]:
        """The rows of an output file in order, `PORTION` at a time; of `columns` those it has."""
        path = self._whole(name)
        return portions(path, [column for column in table.schema(path).names if column in columns])

    def predictions(self, columns: Sequence[str] | None = None, *, tier: int = 0) -> pa.Table:
        """Every scored crystal in the order of the snapshot, also before the ranking.

        In a cascade tier 0 is the cheapest ensemble, which scored everything, and the last tier
        holds what `models` said.
        """
        found = scored(self.ledger, tier, columns)
        if found is None:
            raise Failure(Exit.CONFIG, f"{self.folder} holds no predictions of tier {tier}; go on with: assay run")
        return found

    def chunks(self) -> Iterator[tuple[str, Crystals]]:
        """The chunks of the snapshot, each with its name and its crystals as they were scored."""
        for record, chunk in snapshot.contents(self.ledger):
            content = self.ledger.read(record, chunk.path)
            yield chunk.name, table.from_table(content, "snapshot")[0]

    def crystals(self, ids: Iterable[str], chunks: Container[str] | None = None) -> Crystals:
        """The structures of some crystals, as they were scored, in the order of their ids.

        Where a campaign relaxes, these are the relaxed ones; the snapshot keeps those that were
        delivered.
        `ids` may be a list or a column of a table, for example `results.candidates()["id"][:10]`.
        `chunks` names the chunks that hold them, where the caller knows it; no other is read.
        """
        wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else map(str, ids)))
        left, found = set(wanted), []
        for record, chunk in snapshot.contents(self.ledger):
            if chunks is not None and chunk.name not in chunks:
                continue
            here = left and left.intersection(self.ledger.read(record, chunk.path, ["id"])["id"].to_pylist())
            if here:
                content = table.read(self.folder / chunk.path)
                found.append(content.filter(pa.array([name in here for name in content["id"].to_pylist()])))
                left -= here
        if left:
            raise ValueError(
                f"{self.folder} holds no crystal with the id {min(left)!r} ({len(left)} of {len(wanted)} "
                "are unknown); the ids are those of candidates and predictions"
            )
        return _in_order(found, wanted)

    def reported(self, column: str) -> Crystals:
        """The crystals of the snapshot as they were delivered, with a number that sources report.

        Each crystal is there once, whether it was scored or not. The columns are `column` (NaN
        where it is missing) and, where the sources say it, `<column>_functional`, `licence` and
        `source`.

        Raises:
            Failure: CONFIG, when the snapshot is not finished, or no source reports such a number.
        """
        crystals, seen = self._delivered(column, f"{column}_functional", "licence", SOURCE)
        if column not in seen:
            hint = nearest.hint(column, sorted(seen), "they report")
            raise Failure(Exit.CONFIG, f"no source of {self.folder} reports numbers in a column {column!r}; {hint}")
        return crystals

    def delivered(self) -> Crystals:
        """The crystals of the snapshot as they were delivered, each once, without columns.

        Raises:
            Failure: CONFIG, when the snapshot is not finished, or is empty.
        """
        return self._delivered()[0]

    def _delivered(self, *beside: str) -> tuple[Crystals, set[str]]:
        """The crystals of the snapshot with some columns, and the names of those with numbers."""
        if missing := snapshot.unsealed(self.ledger, stamp.sources(self.folder)):
            raise Failure(Exit.CONFIG, f"{self.folder} lacks rows of {', '.join(missing)}; go on with: assay run")
        wanted, parts, seen = [field.name for field in table.CRYSTAL_FIELDS] + list(beside), [], set[str]()
        for record in self.ledger.all("chunks"):
            for chunk in snapshot.chunks_in(record):
                found = table.schema(self.folder / chunk.path)
                seen |= {name for name, kind in table.kinds(found).items() if kind == "number"}
                parts.append(self.ledger.read(record, chunk.path, [name for name in found.names if name in wanted]))
        if not parts:
            raise Failure(Exit.CONFIG, f"the snapshot of {self.folder} is empty")
        return table.from_table(pa.concat_tables(parts, promote_options="permissive"), "snapshot")[0], seen

    def top(self, most: int = SHOWN) -> list[Candidate]:
        """The best candidates."""
        target, last = self.summary.target, self.summary.last_tier
        parts = [f"{target.name}_{part}" for part in ("mean", "std", "lo", "hi")]
        path = self._whole("candidates.parquet")
        names = table.schema(path).names
        optional = [name for name in ("in_training", "ood_distance", "tier", WARNINGS, "related_to") if name in names]
        rows = _first(path, most, ["rank", "id", "formula", "ood", *optional, *parts])
        place = {row["id"]: row["rank"] for row in rows}
        return [
            Candidate(
                rank=row["rank"],
                id=row["id"],
                formula=row["formula"],
                mean=row[f"{target.name}_mean"],
                std=row[f"{target.name}_std"],
                low=row[f"{target.name}_lo"],
                high=row[f"{target.name}_hi"],
                marks=_marks(row, last, place),
            )
            for row in rows
        ]

    def wrong(self) -> dict[str, str]:
        """Output file -> its defect; empty when the outputs fit the log, or there are none."""
        record = self.ledger.find("ranked", "all")
        if record is None:
            return {}
        found = {name: self.ledger.wrong(name, digest) for name, digest in record.files.items()}
        if self.stale:
            found["summary.json"] = f"is {STALE}"
        return {name: what for name, what in found.items() if what}

    def __repr__(self) -> str:
        try:
            return f"Results({str(self.folder)!r}): {self._described()}"
        except Failure as failure:
            return f"Results({str(self.folder)!r}): {failure}"

    def _repr_html_(self) -> str:
        """The best candidates as an HTML table, for notebooks."""
        try:
            target, best = self.summary.target, self.top()
        except Failure as failure:
            return f"<p>{escape(str(failure))}</p>"
        lines = [_line("th", ("rank", "formula", f"{target.name} ({target.unit})", "interval", "id", ""))]
        for row in best:
            mean, std, low, high = digits.measured(row.mean, row.std, row.low, row.high)
            value, interval = f"{mean} ± {std}", f"[{low}, {high}]"
            lines.append(_line("td", (str(row.rank), row.formula, value, interval, row.id, ", ".join(row.marks))))
        return f"<p>{escape(self._described())}</p><table>{''.join(lines)}</table>"

    def _described(self) -> str:
        if not self.ranked:
            return "not ranked yet"
        whole = "" if self.summary.complete else ", a source incomplete"
        return f"campaign {self.summary.campaign}, {self.summary.balance.ranked:,} crystals ranked{whole}"

    def _whole(self, name: str) -> Path:
        """An output file that is as the ranking wrote it."""
        record = self._ranked()
        wrong = self.ledger.wrong(name, record.files[name])
        if wrong:
            raise Failure(Exit.DISK, f"{self.folder / name} {wrong}; {self.again()}")
        return self.folder / name

    def _ranked(self) -> Record:
        record = self.ledger.find("ranked", "all")
        if record is None:
            raise Failure(Exit.CONFIG, f"{self.folder} is not ranked yet; go on with: assay run")
        return record

    def again(self) -> str:
        """Advice on outputs that are damaged."""
        return f"make the outputs again: assay report {self.folder}"


class Scored:
    """What a tier has scored so far, part by part, as tables of one schema.

    The column `warnings` stands last. It is there when any row has a warning, in whatever part.
    """

    def __init__(self, ledger: Ledger, tier: int) -> None:
        found = [(f"parts/{chunk.name}.parquet", chunk.name) for chunk in snapshot.chunks_of(ledger, tier)]
        parts = [(path, ledger.find("part", name)) for path, name in found]
        self._ledger = ledger
        self.chunks = [name for _, name in found if ledger.find("part", name) is not None]
        """Names of their chunks, in order."""
        self._parts = [(path, part) for path, part in parts if part is not None]
        schemas = dict.fromkeys(table.schema(ledger.folder / path) for path, _ in self._parts)
        whole = pa.unify_schemas([pa.schema([]), *schemas], promote_options="permissive")  # sources differ in columns
        self._warned = WARNINGS in whole.names and any(map(_warns, self._read([WARNINGS])))
        place = whole.get_field_index(WARNINGS)
        self.schema: pa.Schema = whole if place < 0 else whole.remove(place)
        """Its columns."""
        if self._warned:
            self.schema = self.schema.append(pa.field(WARNINGS, pa.string()))

    def __bool__(self) -> bool:
        """Whether anything is scored."""
        return bool(self._parts)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The parts in the order of the snapshot; of some columns, those that a part has."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        for content in self._read(columns):
            found = content
            if WARNINGS in found.column_names and not (self._warned and WARNINGS in schema.names):
                found = found.drop_columns([WARNINGS])
            found = pa.concat_tables([schema.empty_table(), found], promote_options="permissive")
            if WARNINGS in schema.names:
                at = schema.get_field_index(WARNINGS)
                found = found.set_column(at, schema.field(at), pc.fill_null(found[WARNINGS], ""))
            yield found

    def _read(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        for path, part in self._parts:
            names = columns and [name for name in table.schema(self._ledger.folder / path).names if name in columns]
            yield self._ledger.read(part, path, names)


def _warns(content: pa.Table) -> bool:
    return WARNINGS in content.column_names and bool(pc.any(pc.not_equal(content[WARNINGS], "")).as_py())


def scored(ledger: Ledger, tier: int, columns: Sequence[str] | None = None) -> pa.Table | None:
    """What a tier has scored so far, one row per crystal; None when that is nothing.

    Raises:
        ValueError: when the scored crystals lack one of `columns`.
    """
    found = Scored(ledger, tier)
    if not found:
        return None
    missing = sorted(set(columns or ()) - set(found.schema.names))
    if missing:
        raise ValueError(f"there is no column {', '.join(missing)}; there are {', '.join(found.schema.names)}")
    return pa.concat_tables(found.tables(columns))


def portions(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of an intact Parquet file, `PORTION` rows at a time."""
    with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=BUFFER, pre_buffer=False) as file:
        for batch in file.iter_batches(PORTION, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _first(path: Path, most: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The first rows of a Parquet file, without reading the others."""
    with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=BUFFER, pre_buffer=False) as file:
        batches = file.iter_batches(max(most, 1), columns=list(columns))
        return next((batch.to_pylist()[:most] for batch in batches), [])


def _in_order(found: Sequence[pa.Table], ids: Sequence[str]) -> Crystals:
    if not found:
        return empty()
    content = pa.concat_tables(found, promote_options="permissive")
    place = {name: row for row, name in enumerate(content["id"].to_pylist())}
    crystals, _ = table.from_table(content.take(pa.array([place[name] for name in ids])), "snapshot")
    return crystals


def _marks(row: Mapping[str, Any], last: int, place: Mapping[str, int]) -> tuple[str, ...]:
    tier = row.get("tier", last)
    above = min((place.get(id, row["rank"]) for id in row.get("related_to") or ()), default=row["rank"])
    doubts = {
        "in training": row.get("in_training", False),
        "new element": row["ood"],
        "unlike training": (row.get("ood_distance") or 0.0) > 1,
        f"tier {tier} only": tier != last,
        "read with warnings": bool(row.get(WARNINGS)),
        f"related to {above}": above < row["rank"],
    }
    return tuple(mark for mark, holds in doubts.items() if holds)


def _line(cell: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(escaped(text))}</{cell}>' for text in texts)}</tr>"
