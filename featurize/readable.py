"""Which crystals a network can read: the one gate before prediction, training and evaluation.

Enters: `Crystals`, and what builds their graphs. Leaves: the rows that pass with their graphs, and
for every other row the reason. This module does not know networks or where a refusal is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from assay.featurize import alternatives
from assay.featurize.elements import HEAVIEST
from assay.sources.elements import SYMBOLS
from assay.sources.quarantine import Reason

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals


class Built(Protocol):
    """Graphs of a batch of crystals, wherever they lie."""

    def shortest(self) -> NDArray[np.float32]:
        """(n,) Å, shortest edge of each crystal; no edge joins the sites of a split position."""

    def select(self, rows: NDArray[Any]) -> Any:
        """The graphs of these crystals."""


G = TypeVar("G", bound=Built)


@dataclass(frozen=True)
class Refusal:
    """A crystal that no network can read."""

    row: int
    """Position in the batch."""
    reason: Reason
    message: str
    """With the value that was found and what is accepted."""


@dataclass(frozen=True)
class Readable(Generic[G]):
    """The crystals of a batch that networks can read."""

    rows: NDArray[np.int64]
    """(m,) ascending positions in the batch."""
    graphs: G
    """Of these crystals."""
    refused: list[Refusal]
    """The other crystals."""


def readable(crystals: Crystals, build: Callable[[Crystals], G]) -> Readable[G]:
    """Divide a batch into crystals that networks can read and others; `build` makes graphs."""
    heavy = too_heavy(crystals)
    refused = [
        Refusal(int(row), Reason.UNKNOWN_SPECIES, f"holds an element beyond {SYMBOLS[HEAVIEST]}")
        for row in np.flatnonzero(heavy)
    ]
    rows = np.flatnonzero(~heavy)
    graphs = build(crystals.select(rows))
    close = graphs.shortest() < alternatives.CLOSEST
    refused += [
        Refusal(row, Reason.ATOMS_TOO_CLOSE, alternatives.crowding(crystals, row)) for row in rows[close].tolist()
    ]
    return Readable(rows[~close], graphs.select(np.flatnonzero(~close)), refused)


def too_heavy(crystals: Crystals) -> NDArray[np.bool_]:
    """(n,) whether a crystal holds an element without a row in the table of elements."""
    heavy = np.zeros(len(crystals), bool)
    heavy[crystals.site_crystal[crystals.species_site[crystals.numbers > HEAVIEST]]] = True
    return heavy
