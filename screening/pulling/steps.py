"""The steps of a pull, in the order in which a source makes them.

Enters: nothing. Leaves: `Sharding`, then for every shard its `Portion`s and a `ShardEnd`, then
`SourceEnd`; or `Down` at any moment. The driver commits each step as one record of the ledger. The
steps do not know the ledger, nor what kind of source made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from assay.sources.databases.paging import Resume, Shard
from assay.sources.quarantine import Quarantined


@dataclass(frozen=True)
class Sharding:
    """How a source is split into shards, once and for good."""

    source: str
    shards: list[Shard]
    """Empty where the shards show only as they are read (files, prototypes)."""
    stamp: str = ""
    """Digest of the content that the source reads; a pull that goes on must find the same."""

    @classmethod
    def restore(cls, source: str, detail: Mapping[str, Any]) -> Self:
        """The sharding as the ledger keeps it (`detail`)."""
        return cls(source, [Shard(**row) for row in detail["shards"]], detail["stamp"])

    def detail(self) -> dict[str, Any]:
        """The sharding for the ledger, plain JSON."""
        return {"shards": [vars(shard) for shard in self.shards], "stamp": self.stamp}


@dataclass(frozen=True)
class Portion:
    """The rows of one page of a database, or of one block of a local source."""

    source: str
    shard: int
    walk: int
    """Counts the walks through this shard; a walk that begins again replaces the portions of the
    walk before it."""
    number: int
    """Position in the walk, from 0."""
    crystals: pa.Table
    quarantined: list[Quarantined]
    received: int
    """Rows the source sent: crystals and refused rows."""
    announced: int | None = None
    """Rows the source says match, where it says so."""
    shortfall: str = ""
    """On the last portion of a shard: the announced rows that did not come; empty when all did."""
    cursor: dict[str, Any] | None = None
    """Where the walk goes on; None on its last portion."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Provenance: url and sha256 of the reply."""


@dataclass(frozen=True)
class ShardEnd:
    """Every row of a shard has been delivered."""

    source: str
    shard: int
    announced: int | None
    shortfall: str
    """The announced rows that did not come; empty when all did."""


@dataclass(frozen=True)
class SourceEnd:
    """Every shard of a source has been delivered."""

    source: str
    shards: int


@dataclass(frozen=True)
class Down:
    """The source stopped answering."""

    source: str
    message: str


Step = Sharding | Portion | ShardEnd | SourceEnd | Down


@dataclass
class Kept:
    """The portions of an unfinished shard that are kept already."""

    walk: int = 0
    announced: int | None = None
    shortfall: str = ""
    cursors: list[dict[str, Any] | None] = field(default_factory=list)
    """Where the walk went on after each portion; None after its last one."""
    seen: list[str] = field(default_factory=list)
    """Ids of every row, good or refused."""

    @property
    def whole(self) -> bool:
        """Whether the last portion is among them."""
        return bool(self.cursors) and self.cursors[-1] is None

    def resume(self) -> Resume | None:
        """The point where a reader goes on; None at the start."""
        cursors = [cursor for cursor in self.cursors if cursor is not None]
        return Resume.after(cursors, set(self.seen)) if cursors else None

    def add(self, portion: Portion) -> None:
        """Remember one more portion."""
        ids = [*portion.crystals["id"].to_pylist(), *(row.id for row in portion.quarantined)]
        self.restore(portion.cursor, portion.announced, portion.shortfall, ids)

    def restore(self, cursor: dict[str, Any] | None, announced: int | None, shortfall: str, ids: list[str]) -> None:
        """Remember one more portion as the ledger keeps it."""
        self.cursors.append(cursor)
        self.announced = self.announced if announced is None else announced
        self.shortfall = shortfall
        self.seen += ids
