"""The outputs of a campaign, compared with its ledger and its parts.

Enters: the results of a folder whose log is whole, its balance, and a digest of every scored row.
Leaves: problems. The ranking is made again from the numbers in `candidates.parquet`; models are not
needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.audit import cascade
from assay.screening.folder.balance import Balance
from assay.screening.folder.results import Results
from assay.screening.ranking import rank, rules
from assay.screening.ranking.rules import Rule
from assay.screening.settings import config
from assay.screening.settings.exits import Exit, Failure, explain


class Rows:
    """Rows as 16 bytes each: enough to say whether two tables hold the same rows in any order."""

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
        """The number of rows that repeat another one."""
        found = self._sorted()
        return int((found[1:] == found[:-1]).sum())

    def same(self, other: Rows) -> bool:
        """Whether both hold the same rows, each as often."""
        return bool(np.array_equal(self._sorted(), other._sorted()))

    def _sorted(self) -> NDArray[np.bytes_]:
        return np.sort(np.frombuffer(bytes(self._digests), dtype="S16"))


def rows_of_parts(results: Results) -> Rows:
    """An empty `Rows` for the scored rows, with the predictions that were ranked, if any were."""
    target = results.summary.target if _readable(results) else None
    return Rows([f"{target.name}_{part}" for part in rules.PARTS] if target else ())


def damaged(results: Results) -> list[Failure]:
    """Outputs that are not those of the ranking in the log; none, when there was no ranking yet."""
    return [
        Failure(Exit.DISK, f"{results.folder / name} {what}; {results.again()}")
        for name, what in results.wrong().items()
    ]


def compare(results: Results, counted: Balance, scored: Rows) -> list[Failure]:
    """Compare intact outputs with the balance and the scored rows; the problems."""
    if not results.ranked:
        return []
    folder = results.folder
    try:
        defects = [
            Failure(Exit.BALANCE_BROKEN, f"{folder / name} {what}; do not use it, and report this as a defect")
            for name, what in _compare(results, counted, scored)
        ]
    except Failure as failure:  # a ranking rule that is not registered here
        return [failure]
    changed = [
        Failure(Exit.CONFIG, f"{folder / 'config.resolved.yaml'} {what}; {results.again()}")
        for what in _settings(results)
    ]
    return defects + changed


def _readable(results: Results) -> bool:
    return results.ranked and "summary.json" not in results.wrong()


def _compare(results: Results, counted: Balance, scored: Rows) -> Iterator[tuple[str, str]]:
    """(file, defect), for files that are as they were written."""
    summary, candidates, unrankable = results.summary, results.candidates(), results.unrankable()
    if candidates["rank"].to_pylist() != list(range(1, candidates.num_rows + 1)):
        yield "candidates.parquet", f"does not count its rows from 1 to {candidates.num_rows}"
    for ranked, left, target in cascade.by_tier(candidates, unrankable, summary):
        for what in _ranking(ranked, left, rules.make(summary.rank, target)):
            yield "candidates.parquet", what
    if cascade.misplaced(candidates):
        yield "candidates.parquet", "does not rank what the last tier scored before what it did not"
    listed = Rows(scored.columns)
    listed.take(candidates)
    listed.take(unrankable)
    if not listed.same(scored):
        yield "candidates.parquet", "and unrankable.parquet do not hold every scored crystal once, as it was scored"
    rows = {
        "candidates.parquet": (candidates.num_rows, counted.ranked),
        "unrankable.parquet": (unrankable.num_rows, counted.unrankable),
        "quarantine.parquet": (results.quarantine(["id"]).num_rows, counted.quarantined),
    }
    for name, (found, balanced) in rows.items():
        if found != balanced:
            yield name, f"has {found:,} rows, by the balance there are {balanced:,}"
    if summary.balance != counted:
        yield "summary.json", f"has another balance ({vars(summary.balance)}) than the log ({vars(counted)})"


def _ranking(candidates: pa.Table, unrankable: pa.Table, rule: Rule) -> Iterator[str]:
    """Defects of the order, which is made again."""
    found = rank.measure(candidates, rule)
    said = candidates["score"].to_numpy()
    if not (np.isfinite(found.scores).all() and np.isfinite(said).all()):
        yield "ranks a number that is not finite"
    if not np.array_equal(said, found.scores, equal_nan=True):
        yield f"has scores that do not follow from its predictions (by {rule.settings.by})"
    for name, column in found.added.items():
        if not np.array_equal(candidates[name].to_numpy(), column, equal_nan=True):
            yield f"has a column {name} that does not follow from its predictions (by {rule.settings.by})"
    if not np.array_equal(rank.best_first(replace(found, scores=said), rule), np.arange(len(said))):
        yield "is not in the order of score, mean, std and id"
    finite = np.isfinite(rank.measure(unrankable, rule).scores)
    if finite.any():
        yield f"lacks {int(finite.sum())} crystals of unrankable.parquet whose prediction is finite"


def _settings(results: Results) -> Iterator[str]:
    """Settings outside the fingerprint that differ now: the outputs can be made again with them."""
    try:
        campaign = config.load(results.folder / "config.resolved.yaml")
    except Exception as error:
        if explain(error) is None:
            raise
        return  # listed with the fingerprint
    summary = results.summary
    pairs = {"campaign": (campaign.name, summary.campaign), "max_bad": (campaign.max_bad, summary.max_bad)}
    before = summary.rank.model_dump(mode="json")
    pairs |= {f"rank.{name}": (value, before[name]) for name, value in campaign.rank.model_dump(mode="json").items()}
    for name, (now, then) in pairs.items():
        if now != then:
            yield f"says {name}: {now}, the outputs were made with {then}"
