"""An assembler that counts: structures and refusals of each file, and columns of all files.

Enters: what an `Assembler` takes. Leaves: the same, or `Exceeded` where a file holds more than the
limits accept. This module does not know formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.sources.assemble import Assembler
from assay.sources.checks import limits
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined, Reason

NOT_READ = "this structure and all after it are not read"


class CountedAssembler(Assembler):
    """An assembler that a small file cannot fill."""

    _begun, _refused_before = 0, 0
    _names: frozenset[str] = frozenset()
    _finished = False

    @property
    def count(self) -> int:
        """Structures of the file that is being read, refused ones counted."""
        return len(self._ids) + len(self.quarantined) - self._begun

    def begin(self) -> None:
        """Begin with another file."""
        self._begun, self._refused_before = len(self._ids) + len(self.quarantined), len(self.quarantined)

    def end(self, id: str, origin: str, reason: Reason, message: str) -> None:
        """Record the end of a file that is not read on, whatever it holds."""
        super().refuse(id, origin, reason, message)

    def add(
        self,
        id: str,
        origin: str,
        lattice: Any,
        coords: Any,
        site_species: Sequence[Sequence[tuple[int, float]]],
        columns: Mapping[str, Any] | None = None,
        cartesian: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        """Take one crystal.

        Raises:
            Exceeded: when the file holds too many.
        """
        limits.check("structures", self.count + 1, NOT_READ)
        if columns and not columns.keys() <= self._names:
            names = self._names | columns.keys()
            try:
                limits.check("columns", len(names))
            except limits.Exceeded as error:
                self.refuse(id, origin, Reason.TOO_LARGE, str(error))
                return
            self._names = names
        super().add(id, origin, lattice, coords, site_species, columns, cartesian, warnings)

    def refuse(self, id: object, origin: str, reason: Reason, message: str) -> None:
        """Record a crystal that the caller knows to be unusable.

        Raises:
            Exceeded: when the file holds too many.
        """
        if not self._finished:
            limits.check("structures", self.count + 1, NOT_READ)
            limits.check("refused", len(self.quarantined) - self._refused_before + 1, NOT_READ)
        super().refuse(id, origin, reason, message)

    def finish(self) -> tuple[Crystals, list[Quarantined]]:
        """Return the crystals that passed every check, and a record for each other."""
        self._finished = True
        return super().finish()
