"""The selection of crystals that go on from one tier of a cascade to the next.

Enters: the parts of a tier, and a `Cut`. Leaves: chunks of the next tier, named by content like
those of the snapshot, and one record that names them. The selection is a function of the parts
alone: the same crystals survive in every order of arrival. It does not know how a tier predicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.potentials.columns import FORMED
from assay.screening.folder import results, snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.snapshot import Chunk
from assay.screening.folder.summary import Target
from assay.screening.ranking import rank, rules
from assay.screening.ranking.rules import Rule
from assay.screening.settings.choice import Rank
from assay.screening.settings.config import Campaign
from assay.sources import table
from assay.sources.crystals import WARNINGS, text_array

AUDIT = "audit"
"""Column of the last tier's chunks: True for crystals drawn at random from those set aside."""
CARRIED = ("source", "origin", WARNINGS, *FORMED)
"""Columns that go on beside the structure, formation energies of relaxed crystals among them; the
parts of tier 0 hold all other reported columns."""
EMPTY: NDArray[Any] = text_array([])


@dataclass(frozen=True)
class Cut:
    """Everything that decides which crystals survive a tier."""

    rule: Rank
    target: Target
    """The property that ranks, as this tier predicts it."""
    keep: int | float
    """Fraction of the crystals that entered, or a number of crystals."""
    audit: int | None
    """Crystals to draw from all that were set aside so far; None unless the next tier is the last
    one."""
    seed: int
    chunk_size: int

    def stored(self) -> dict[str, Any]:
        """The cut as plain values, for a record."""
        return {**asdict(self), "rule": self.rule.model_dump(mode="json")}

    @staticmethod
    def read(stored: dict[str, Any]) -> Cut:
        """The cut of a record."""
        rule, target = Rank.model_validate(stored["rule"]), Target(**stored["target"])
        return Cut(**{**stored, "rule": rule, "target": target})


@dataclass(frozen=True)
class Selection:
    """The crystals of a tier that the next tier scores."""

    entered: int
    """Crystals in the chunks of the tier."""
    survivors: NDArray[Any]
    """(s,) ids."""
    audit: NDArray[Any]
    """(a,) ids drawn from the crystals that this tier and the ones before it set aside; sorted."""
    aside: int
    """Crystals that these tiers set aside, the drawn ones among them."""
    unjudged: int
    """Survivors whose score is not finite."""

    def counts(self) -> dict[str, int]:
        """The selection in numbers, as its record holds it."""
        return {name: value if isinstance(value, int) else len(value) for name, value in vars(self).items()}


def cut(campaign: Campaign, targets: Sequence[Target], tier: int) -> Cut:
    """How a campaign cuts a tier."""
    settings = campaign.cascade
    assert settings is not None
    audit = settings.audit if tier + 1 == len(settings.tiers) else None
    keep, size = settings.tiers[tier].keep, campaign.chunk_size
    return Cut(campaign.rank, targets[tier], keep, audit, settings.seed, size)


def select(ledger: Ledger, campaign: Campaign, targets: Sequence[Target], tier: int) -> Record:
    """Commit the selection from a tier, all of whose parts are committed."""
    how = cut(campaign, targets, tier)
    selection = choose(ledger, tier, how)
    made, files = [], {}
    for name, content in chunks(ledger, tier, selection, how):
        path, digest = ledger.put(f"snapshot/{name}.parquet", content)
        files[path] = digest
        made.append(Chunk(name, path, content.num_rows))
    detail = {"chunks": [vars(chunk) for chunk in made], "cut": how.stored()}
    return ledger.record("selection", str(tier + 1), files, selection.counts(), detail)


def choose(ledger: Ledger, tier: int, how: Cut) -> Selection:
    """The selection from a tier."""
    rule = rules.make(how.rule, how.target)
    columns = ["id", *rule.columns().values()]
    scored = results.scored(ledger, tier, columns)
    entered = sum(chunk.rows for chunk in snapshot.chunks_of(ledger, tier))
    if scored is None:
        return Selection(entered, EMPTY, EMPTY, 0, 0)
    found = rank.measure(scored, rule)
    kept = survivors(found, rule, quota(how.keep, entered))
    aside = texts(found.ids.filter(pa.array(~kept)))
    if how.audit is not None:
        before = [_set_aside(ledger, earlier) for earlier in range(tier)]
        aside = np.concatenate([*before, aside])
    audit = drawn(aside, how.audit or 0, how.seed)
    return Selection(
        entered, texts(found.ids.filter(pa.array(kept))), audit, len(aside), int((~np.isfinite(found.scores)).sum())
    )


def texts(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """The texts of a column."""
    return text_array(column.to_pylist())


def _set_aside(ledger: Ledger, tier: int) -> NDArray[Any]:
    """Ids that a tier scored and the next one does not score."""
    scored = results.scored(ledger, tier, ["id"])
    ids = EMPTY if scored is None else texts(scored["id"])
    return np.setdiff1d(ids, members(ledger, tier + 1))


def quota(keep: float, rows: int) -> int:
    """Number of crystals that go on, of `rows`.

    >>> quota(0.05, 1000), quota(0.001, 100), quota(5000, 100)
    (50, 1, 5000)
    """
    return keep if isinstance(keep, int) else max(1, round(keep * rows))


def survivors(found: rank.Measured, rule: Rule, most: int) -> NDArray[np.bool_]:
    """(n,) True for the best `most` in the order of a ranking, and for rows without a score.

    A row whose score is not finite goes on, so that a better ensemble judges it.
    """
    kept: NDArray[np.bool_] = ~np.isfinite(found.scores)
    kept[rank.best_first(found, rule)[:most]] = True
    return kept


def drawn(ids: NDArray[Any], n: int, seed: int) -> NDArray[Any]:
    """`n` ids at random, sorted.

    These have the lowest sha256 of seed and id, so that the draw does not depend on their order.

    >>> drawn(np.array(["a", "b", "c"]), 2, seed=0).tolist()
    ['a', 'b']
    >>> drawn(np.array(["c", "a", "b"]), 2, seed=0).tolist()
    ['a', 'b']
    """
    by_hash = sorted(ids.tolist(), key=lambda name: (hashlib.sha256(f"{seed} {name}".encode()).digest(), name))
    return text_array(sorted(by_hash[:n]))


def members(ledger: Ledger, tier: int, *, only_audit: bool = False) -> NDArray[Any]:
    """Ids in the chunks of a tier above 0; `only_audit`: those in the last tier for the audit."""
    record = ledger.find("selection", str(tier))
    if record is None:
        return EMPTY
    tables = [ledger.read(record, path, ["id", AUDIT] if only_audit else ["id"]) for path in record.files]
    ids = [name for content in tables for name in content["id"].to_pylist()]
    marks = [mark for content in tables for mark in content[AUDIT].to_pylist()] if only_audit else [True] * len(ids)
    return text_array([name for name, mark in zip(ids, marks, strict=True) if mark])


def chunks(ledger: Ledger, tier: int, selection: Selection, how: Cut) -> Iterator[tuple[str, pa.Table]]:
    """(name, crystals) of each chunk for the next tier.

    Memory holds one of them and one chunk of the snapshot.
    """
    audit = None if how.audit is None else set(selection.audit.tolist())
    wanted = {*selection.survivors.tolist(), *selection.audit.tolist()}
    size, folder = how.chunk_size, f"tier-{tier + 1}"
    left: pa.Table | None = None
    for piece in _pieces(ledger, wanted):
        left = piece if left is None else pa.concat_tables([left, piece], promote_options="permissive")
        while left.num_rows >= size:
            yield _named(left.slice(0, size), folder, audit)
            left = left.slice(size)
    if left is not None and left.num_rows:
        yield _named(left, folder, audit)


def _pieces(ledger: Ledger, wanted: Collection[str]) -> Iterator[pa.Table]:
    """The crystals of some ids, in the order of the snapshot."""
    names = {*(column.name for column in table.CRYSTAL_FIELDS), *CARRIED}
    for record, chunk in snapshot.contents(ledger):
        content = ledger.read(record, chunk.path)
        content = content.select([name for name in content.column_names if name in names])
        yield content.filter(pa.array([name in wanted for name in content["id"].to_pylist()], pa.bool_()))


def _named(content: pa.Table, folder: str, audit: Collection[str] | None) -> tuple[str, pa.Table]:
    crystals, _ = table.from_table(content, "chunk")
    if audit is not None:
        crystals = crystals.with_columns(**{AUDIT: np.array([name in audit for name in crystals.ids.tolist()], bool)})
    return f"{folder}/{snapshot.content_name(crystals)}", table.to_table(crystals)
