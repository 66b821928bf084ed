"""What a worker can be asked to do: one class per kind of work, each in its own file.

Enters: a table of crystals. Leaves: a result, and the entry that the ledger keeps of it. A piece of
work owns everything that differs between the kinds: runners and stages ask it and know no names of
kinds. It does not know where it is done, nor which campaign asked for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from assay.featurize.standard import Standard
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.ensemble.kept.store import Store
    from assay.models.potentials.potential import Potential

R = TypeVar("R")


@dataclass(frozen=True)
class Entry:
    """What the ledger keeps of one result."""

    kind: str
    """Kind of the record."""
    tables: Mapping[str, pa.Table]
    """Path inside the campaign folder -> content."""
    counts: Mapping[str, int]
    detail: Mapping[str, Any] = field(default_factory=dict)


class Models(Protocol):
    """What a worker has loaded for the work it is asked to do."""

    standard: Standard | None
    """The cell in which crystals are predicted; None where it is that in which they came."""

    store: Store | None
    """Where outputs of members are looked up and kept; None where all are computed."""

    def ensembles(self, tier: int | None) -> Sequence[Ensemble]:
        """The ensembles of a cheap tier of a cascade, or those of `models` for None."""

    def potential(self) -> Potential:
        """The force field that relaxes."""


class Work(ABC, Generic[R]):
    """One kind of work; it can be pickled, because it crosses to other processes."""

    @property
    @abstractmethod
    def name(self) -> str:
        """How the log of attempts, the progress board and warnings call it; without a space."""

    @abstractmethod
    def do(self, models: Models, table: pa.Table) -> R:
        """Do it with the crystals of a table; the result depends on these and the weights alone."""

    @abstractmethod
    def merge(self, results: Sequence[R]) -> R:
        """The results of consecutive rows as one result."""

    @abstractmethod
    def blame(self, table: pa.Table, result: R, guilty: Sequence[int]) -> R:
        """The result for all rows of a table, given that for the rows that are not guilty.

        A row is guilty when it ends every process that works on it.
        """

    @abstractmethod
    def entry(self, key: str, rows: int, result: R) -> Entry:
        """What the ledger keeps of the result for `rows` crystals, under that key."""


def merge_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of the tables of consecutive rows."""
    return pa.concat_tables(tables)
