"""The outputs of a campaign against its ledger and its parts.

Enters: a ledger whose log is whole, the accounts, and a digest of every scored row. Leaves:
problems. A ranking is made again here from the numbers in `candidates.parquet`; models are not
needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.screening.audit import cascade
from assay.screening.folder.balance import Accounts
from assay.screening.folder.ledger import Ledger
from assay.screening.settings import config
from assay.screening.settings.config import Rank
from assay.screening.settings.exits import Exit, Failure, explain

if TYPE_CHECKING:
    import pyarrow as pa

VALUES = ("mean", "std", "lo", "hi")
"""What is predicted of the property that ranks."""


class Rows:
    """Many rows as 16 bytes each: enough to say whether two tables hold the same ones, in any order."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        """`columns` are float64 columns that belong to a row besides its id."""
        self.columns = columns
        self._digests = bytearray()

    def take(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        ids = table["id"].to_pylist()
        values = [np.asarray(table[name].to_numpy(), dtype=np.float64) for name in self.columns]
        self.add(ids, np.stack(values, axis=1) if values else None)

    def add(self, ids: Iterable[str], values: NDArray[np.float64] | None = None) -> None:
        """Add rows by id, with (n, columns) values."""
        for row, name in enumerate(ids):
            digest = hashlib.blake2b(name.encode("utf-8"), digest_size=16)
            if values is not None:
                digest.update(b"\0" + values[row].tobytes())
            self._digests += digest.digest()

    def doubled(self) -> int:
        """How many rows are there more than once."""
        found = self._sorted()
        return int((found[1:] == found[:-1]).sum())

    def same(self, other: Rows) -> bool:
        """Whether both hold the same rows, each as often."""
        return bool(np.array_equal(self._sorted(), other._sorted()))

    def _sorted(self) -> NDArray[np.bytes_]:
        return np.sort(np.frombuffer(bytes(self._digests), dtype="S16"))


def rows_of_parts(book: Ledger) -> Rows:
    """An empty `Rows` for the scored rows: with the numbers that were ranked, where `summary.json` tells which."""
    rule = _summary(book).get("rank", {})
    return Rows([f"{rule['property']}_{part}" for part in VALUES] if rule else ())


def damaged(book: Ledger) -> list[Failure]:
    """Outputs that are not those of the ranking in the log; none, when the campaign was not ranked yet."""
    record = book.find("ranked", "all")
    if record is None:
        return []
    wrong = {name: book.wrong(name, digest) for name, digest in record.files.items()}
    if record.sequence != len(book) - 1:
        wrong["summary.json"] = "is older than the last record of the log"
    return [Failure(Exit.DISK, f"{book.folder / name} {what}; {_again(book)}") for name, what in wrong.items() if what]


def compare(book: Ledger, counted: Accounts, scored: Rows) -> list[Failure]:
    """What the outputs say against the accounts and the scored rows, for outputs that are as they were written."""
    if book.find("ranked", "all") is None:
        return []
    folder = book.folder
    told = [Failure(Exit.BALANCE_BROKEN, f"{folder / name} {what}; do not use it, and report this as a defect")
            for name, what in _compare(book, counted, scored)]  # fmt: skip
    settings = [Failure(Exit.CONFIG, f"{folder / 'config.resolved.yaml'} {what}; {_again(book)}")
                for what in _settings(book)]  # fmt: skip
    return told + settings


def _again(book: Ledger) -> str:
    return f"make the outputs again: assay report {book.folder}"


def _compare(book: Ledger, counted: Accounts, scored: Rows) -> Iterator[tuple[str, str]]:
    """(file, what is wrong with it), for files that are as they were written."""
    from assay.sources import table

    summary = _summary(book)
    tier = ["tier"] if "cascade" in summary else []
    candidates = table.read(book.folder / "candidates.parquet", ["id", "rank", "score", *tier, *scored.columns])
    unrankable = table.read(book.folder / "unrankable.parquet", ["id", *tier, *scored.columns])
    if candidates["rank"].to_pylist() != list(range(1, candidates.num_rows + 1)):
        yield "candidates.parquet", f"does not count its rows from 1 to {candidates.num_rows}"
    for ranked, left, how in cascade.by_tier(candidates, unrankable, summary):
        for what in _ranking(ranked, left, how):
            yield "candidates.parquet", what
    if cascade.misplaced(candidates):
        yield "candidates.parquet", "does not rank what the last tier scored before what it did not"
    listed = Rows(scored.columns)
    listed.take(candidates)
    listed.take(unrankable)
    if not listed.same(scored):
        yield "candidates.parquet", "and unrankable.parquet do not hold every scored crystal once, as it was scored"
    numbers = {"candidates.parquet": (candidates.num_rows, counted.ranked),
               "unrankable.parquet": (unrankable.num_rows, counted.unrankable),
               "quarantine.parquet": (table.read(book.folder / "quarantine.parquet", ["id"]).num_rows,
                                      counted.quarantined)}  # fmt: skip
    for name, (rows, said) in numbers.items():
        if rows != said:
            yield name, f"has {rows:,} rows, by the accounts there are {said:,}"
    if summary["accounting"] != vars(counted):
        yield "summary.json", f"has other accounts ({summary['accounting']}) than the log ({vars(counted)})"


def _ranking(candidates: pa.Table, unrankable: pa.Table, rule: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the order, which is made again."""
    from assay.screening.ranking import rank

    values, rest = ({part: np.asarray(table[f"{rule['property']}_{part}"].to_numpy()) for part in VALUES}
                    for table in (candidates, unrankable))  # fmt: skip
    asked = Rank.model_validate({name: rule[name] for name in Rank.model_fields})
    scores = candidates["score"].to_numpy()
    if not all(np.isfinite(column).all() for column in (scores, values["mean"], values["std"])):
        yield "ranks a number that is not finite"
    how = {"level": rule["level"], "calibrated": rule.get("calibrated", False)}
    if not np.array_equal(scores, rank.score(values, asked, **how)):
        yield f"has scores that do not follow from its predictions (by {asked.by})"
    falling = asked.order == "descending" or asked.by == "probability"
    ids = np.array(candidates["id"].to_pylist(), dtype=np.str_)
    if not np.array_equal(rank.order(scores, values["std"], ids, falling), np.arange(len(ids))):
        yield "is not in the order of score, std and id"
    finite = np.isfinite([rank.score(rest, asked, **how), rest["mean"], rest["std"]]).all(axis=0)
    if finite.any():
        yield f"lacks {int(finite.sum())} crystals of unrankable.parquet whose prediction is finite"


def _settings(book: Ledger) -> Iterator[str]:
    """Settings that are not in the fingerprint, because the outputs can be made again with others."""
    try:
        campaign = config.load(book.folder / "config.resolved.yaml")
    except Exception as error:
        if explain(error) is None:
            raise
        return  # told with the fingerprint
    summary = _summary(book)
    now = {"campaign": campaign.name, "max_bad": campaign.max_bad}
    before: dict[str, Any] = {name: summary[name] for name in now}
    for name, value in campaign.rank.model_dump(mode="json").items():
        if name not in {"model", "property"} or value is not None:
            now[f"rank.{name}"], before[f"rank.{name}"] = value, summary["rank"][name]
    for name, value in now.items():
        if value != before[name]:
            yield f"says {name}: {value}, the outputs were made with {before[name]}"


def _summary(book: Ledger) -> dict[str, Any]:
    """Content of `summary.json`, when it is the one that the log names."""
    record = book.find("ranked", "all")
    if record is None or book.wrong("summary.json", record.files["summary.json"]):
        return {}
    content: dict[str, Any] = json.loads((book.folder / "summary.json").read_bytes())
    return content
