"""The outputs of a campaign, compared with its ledger and its parts.

Enters: the results of a folder whose log is whole, its balance, and a digest of the scored rows.
Leaves: problems. The ranking is made again from the numbers in `candidates.parquet`, a portion of
the rows at a time; models are not needed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.audit import cascade
from assay.screening.folder import naming
from assay.screening.folder.balance import Balance
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Excluded, Summary
from assay.screening.ranking import bounds, rank, rules, several
from assay.screening.ranking.compared import topk
from assay.screening.ranking.rules import Rule
from assay.screening.ranking.standing import Standing
from assay.screening.settings import config
from assay.screening.settings.choice import Predicted
from assay.screening.settings.exits import Exit, Failure, explain
from assay.sources import table

OUTPUTS = ("candidates.parquet", "unrankable.parquet", "quarantine.parquet")
EXCLUDED = "excluded.parquet"
"""Written with filters on predictions alone."""


class Rows:
    """Rows as the sum of their digests, which tells whether others are the same in any order."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        """`columns` are float64 columns that belong to a row besides its id."""
        self.columns = columns
        self._rows = self._sum = 0

    def take(self, content: pa.Table) -> None:
        """Add the rows of a table."""
        ids = content["id"].to_pylist()
        values = [np.asarray(content[name].to_numpy(), dtype=np.float64) for name in self.columns]
        self.add(ids, np.stack(values, axis=1) if values else None)

    def add(self, ids: Sequence[str], values: NDArray[np.float64] | None = None) -> None:
        """Add rows by id, with (n, columns) values."""
        self._rows += len(ids)
        for row, name in enumerate(ids):
            digest = hashlib.blake2b(name.encode("utf-8"), digest_size=32)
            if values is not None:
                digest.update(b"\0" + values[row].tobytes())
            self._sum += int.from_bytes(digest.digest())
        self._sum %= 2**256

    def same(self, other: Rows) -> bool:
        """Whether both hold the same rows, each as often."""
        return (self._rows, self._sum) == (other._rows, other._sum)


class Ids:
    """Ids as they come, which tells how many repeat another one."""

    def __init__(self) -> None:
        self._known, self._repeated = naming.Digests(), 0

    def add(self, ids: Sequence[str]) -> None:
        """Add some ids."""
        self._repeated += len(ids) - self._known.add(dict.fromkeys(map(naming.digest, ids), 0))

    def doubled(self) -> int:
        """The number of ids that repeat another one."""
        return self._repeated


def rows_of_parts(results: Results) -> Rows:
    """An empty `Rows` for the scored rows, with the predictions that were ranked, if any were."""
    name = results.summary.predicted if _readable(results) else None
    return Rows([f"{name}_{part}" for part in rules.PARTS] if name else ())


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
    summary, listed = results.summary, Rows(scored.columns)
    outputs = [*OUTPUTS, *(name for name in (EXCLUDED,) if name in summary.sha256)]
    ranking, rows = Ranking(summary), dict.fromkeys(outputs, 0)
    looked_at = {*listed.columns, *ranking.columns(table.schema(results.folder / "candidates.parquet"))}
    for name, look in zip(outputs, (ranking.take, ranking.leave, None, ranking.exclude)):
        for portion in results.portions(name, looked_at):
            rows[name] += portion.num_rows
            if look is not None:
                look(portion)
                listed.take(portion)
    yield from ranking.defects()
    if not listed.same(scored):
        others = " and ".join(name for name in outputs if name not in ("candidates.parquet", "quarantine.parquet"))
        yield "candidates.parquet", f"and {others} do not hold every scored crystal once, as it was scored"
    balanced = (counted.ranked, counted.unrankable, counted.quarantined, counted.excluded)
    for name, found, said in zip(outputs, rows.values(), balanced):
        if found != said:
            yield name, f"has {found:,} rows, by the balance there are {said:,}"
    if summary.balance != counted:
        yield "summary.json", f"has another balance ({vars(summary.balance)}) than the log ({vars(counted)})"


class Ranking:
    """The order of the candidates, made again; portions of one table pass by."""

    def __init__(self, summary: Summary) -> None:
        self._rules = [several.make(summary.rank, target, summary.objectives) for target in cascade.targets(summary)]
        self._standing = Standing(self._rules[-1], summary.rank.top)
        self._whole: list[pa.Table] = []  # what a rule of several objectives reads, and what it found
        self._chances: list[NDArray[np.float64]] = []
        self._added: list[str] = []
        self._last: pa.Table | None = None  # row of the candidates
        self._found: dict[tuple[str, str], None] = {}
        self._rankable = 0  # rows of unrankable.parquet with a finite score
        self._excluded, self._last_tier = summary.excluded or Excluded([], {}), summary.last_tier
        self._reasons = Counter[str]()

    def columns(self, schema: pa.Schema) -> Iterator[str]:
        """Columns of candidates of a schema that are looked at."""
        yield from ("rank", "id", "score", "tier", bounds.REASON.name, topk.COLUMN)
        yield from bounds.columns(self._excluded.bounds)
        yield from self._standing.columns()
        for rule in self._rules:
            yield from rule.columns().values()
            self._added = [*rank.measure(schema.empty_table(), rule).added]
            yield from self._added

    def take(self, candidates: pa.Table) -> None:
        """Look at the next candidates, beside the last one before them."""
        if self._reasons_of(candidates).null_count < len(candidates):
            self._note("ranks a crystal that filters.predicted excludes")
        first = 1 if self._last is None else self._last["rank"][0].as_py() + 1
        if not np.array_equal(candidates["rank"].to_numpy(), np.arange(first, first + len(candidates))):
            self._note("does not count its rows from 1")
        content = candidates if self._last is None else pa.concat_tables([self._last, candidates])
        self._last = content.slice(max(len(content) - 1, 0))
        self._compare(candidates)
        if not self._standing.rule.whole:
            for rows, rule in cascade.by_tier(content, self._rules):
                for what in _wrong(rows, rule):
                    self._note(what)
        if cascade.misplaced(content):
            self._note("does not rank what the last tier scored before what it did not")

    def _compare(self, candidates: pa.Table) -> None:
        """Keep of the next candidates what says how they stand beside all others."""
        if self._standing.rule.whole:
            names = dict.fromkeys((*self._standing.columns(), "score", *self._added))
            self._whole.append(candidates.select([*names]))
            return
        last = candidates if len(self._rules) == 1 else next(cascade.by_tier(candidates, self._rules))[0]
        self._standing.take(last)
        self._chances.append(np.asarray(last[topk.COLUMN].to_numpy(), np.float64))

    def _compared(self) -> Iterator[str]:
        """Defects of the columns that compare all candidates."""
        if self._whole:
            yield from _wrong(pa.concat_tables(self._whole), self._standing.rule)
        elif self._chances and not np.array_equal(
            self._standing.chances(), np.concatenate(self._chances), equal_nan=True
        ):
            yield f"has a column {topk.COLUMN} that does not follow from its predictions"

    def leave(self, unrankable: pa.Table) -> None:
        """Look at the next rows that could not be ranked."""
        if self._reasons_of(unrankable).null_count < len(unrankable):
            self._note("holds a crystal that filters.predicted excludes", "unrankable.parquet")
        for rows, rule in cascade.by_tier(unrankable, self._rules):
            if rule.whole:
                self._rankable += sum(not text for text in rule.lacks(rank.read(rows, rule)) or [])
                continue
            self._rankable += int(np.isfinite(rank.measure(rows, rule).scores).sum())

    def exclude(self, excluded: pa.Table) -> None:
        """Look at the next rows that filters on predictions excluded."""
        found = self._reasons_of(excluded)
        if found.null_count:
            self._note("holds a crystal that passes filters.predicted", EXCLUDED)
        if found.to_pylist() != excluded[bounds.REASON.name].to_pylist():
            self._note("gives a reason that does not follow from the predictions", EXCLUDED)
        self._reasons.update(bounds.count(found))

    def _reasons_of(self, rows: pa.Table) -> pa.Array:
        return bounds.reasons(rows, self._excluded.bounds, self._last_tier)

    def _note(self, what: str, name: str = "candidates.parquet") -> None:
        self._found[name, what] = None

    def defects(self) -> Iterator[tuple[str, str]]:
        """(file, defect), once every row was looked at."""
        for what in self._compared():
            self._note(what)
        if self._rankable:
            self._note(f"lacks {self._rankable} crystals of unrankable.parquet whose prediction is finite")
        yield from self._found
        if self._reasons != self._excluded.reasons:
            yield "summary.json", f"counts {self._excluded.reasons} in {EXCLUDED}, there are {dict(self._reasons)}"


def _wrong(candidates: pa.Table, rule: Rule) -> Iterator[str]:
    """Defects of some rows that follow each other, all of one tier."""
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
        yield f"is not in the order of {', '.join(name for name, _ in rank.keys(rule))}"


def _settings(results: Results) -> Iterator[str]:
    """Settings outside the fingerprint that differ now: the outputs can be made again with them."""
    try:
        campaign = config.load(results.folder / "config.resolved.yaml")
    except Exception as error:
        if explain(error) is None:
            raise
        return  # listed with the fingerprint
    summary = results.summary
    pairs: dict[str, tuple[object, object]]
    pairs = {"campaign": (campaign.name, summary.campaign), "max_bad": (campaign.max_bad, summary.max_bad)}
    before = summary.rank.model_dump(mode="json")
    if campaign.stability is not None and summary.stability is not None:
        was = summary.stability.settings.model_dump(mode="json")
        pairs |= {f"stability.{name}": (v, was[name]) for name, v in campaign.stability.model_dump(mode="json").items()}
    limits = {name: limit.model_dump() for name, limit in campaign.filters.predicted.items()}
    held = summary.excluded.bounds if summary.excluded else []
    made = {bound.target.name: {key: vars(bound)[key] for key in Predicted.model_fields} for bound in held}
    pairs["filters.predicted"] = limits, made
    here = campaign.rank.model_dump(mode="json")
    pairs |= {f"rank.{name}": (here.get(name), before.get(name)) for name in {**before, **here}}
    for name, (now, then) in pairs.items():
        if now != then:
            yield f"says {name}: {now}, the outputs were made with {then}"
