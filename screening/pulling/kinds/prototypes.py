"""The kind `prototypes`: hypothetical crystals, computed on the spot.

Enters: a number, a seed and a choice of prototypes and elements. Leaves: decorated prototypes. This
module does not know how they are made (`assay.sources.prototypes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from assay.screening.pulling.local import BLOCK, LocalSource
from assay.screening.pulling.source import Provenance
from assay.screening.settings import nearest
from assay.screening.settings.section import Count
from assay.sources import prototypes
from assay.sources.crystals import Crystals
from assay.sources.elements import NUMBERS
from assay.sources.quarantine import Quarantined


class PrototypeSource(LocalSource):
    """Hypothetical crystals: decorated prototypes."""

    kind: Literal["prototypes"]
    n: Count
    """Number of crystals."""
    seed: int = 0
    prototypes: list[str] | None = None
    """Prototype names; unset: all."""
    elements: list[str] | None = None
    """Element symbols that may decorate; unset: all that suit."""

    def check(self, licences: Sequence[str], *, begun: bool) -> None:  # noqa: ARG002 (they need neither)
        """Refuse names that are no element or no prototype, and more crystals than there are."""
        for symbol in self.elements or []:
            if symbol not in NUMBERS:
                raise ValueError(f"elements: {symbol!r} is not an element symbol (H to Og)")
        for chosen in self.prototypes or []:
            if chosen not in prototypes.PROTOTYPES:
                raise ValueError(f"prototypes: {chosen!r} is not known; {nearest.hint(chosen, prototypes.PROTOTYPES)}")
        most = prototypes.count(self.prototypes, self.elements)
        if self.n > most:
            raise ValueError(f"n: {self.n:,} crystals, {most:,} hypothetical ones exist for this choice")

    def describe(self) -> list[str]:
        """The number of crystals."""
        return [f"{self.n:,} hypothetical crystals"]

    def provenance(self) -> Provenance:
        """Computed here, so nobody's licence is needed."""
        return Provenance("hypothetical crystals (decorated prototypes)", "none needed")

    def read(self) -> Iterator[tuple[Crystals, list[Quarantined]]]:
        """A block after the other; a shorter sequence is the beginning of a longer one."""
        for start in range(0, self.n, BLOCK):
            yield prototypes.generate(min(BLOCK, self.n - start), self.seed, self.prototypes, self.elements, start), []
