"""The magnetic part of an mCIF: operations with time reversal, and moments.

Enters: a block of `grammar`. Leaves: the operations of the magnetic space group in all their
cell, and the moments of all sites. The dictionary is magCIF of the International Union of
Crystallography. This module does not know atoms.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks import limits
from assay.sources.checks.texts import MAX_TEXT
from assay.sources.formats.cif import operations
from assay.sources.formats.cif.build import Built
from assay.sources.formats.cif.grammar import Block, Item, is_unsaid
from assay.sources.formats.cif.operations import METRIC_TOLERANCE, SITE_TOLERANCE, Operations, distinct
from assay.sources.formats.cif.sites import Site, number
from assay.sources.formats.cif.species import Refused
from assay.sources.formats.cif.symmetry import Reading
from assay.sources.quarantine import Reason

MOMENTS = "magnetic_moments"
"""Column with the moments: JSON, one [x, y, z] in Bohr magnetons per site, Cartesian."""
_Signed: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]
_IDENTITY: _Signed = (np.eye(3, dtype=np.int64)[None], np.zeros((1, 3)), np.ones(1, np.int64))
MOMENT_TOLERANCE = 0.05
"""Bohr magnetons; a component that symmetry changes by less is rounding."""
_OPERATIONS = ("_space_group_symop_magn_operation_xyz",)
_CENTRING = ("_space_group_symop_magn_centering_xyz",)
_NAMES = ("_space_group_magn_", "_magnetic_space_group_")


@dataclass(frozen=True, eq=False)
class Magnetic:
    """A magnetic space group: operations and the time reversal of each."""

    operations: Operations
    reversal: NDArray[np.int64]
    """(n,) +1, or -1 where an operation turns all moments around as well."""
    grey: bool = False
    """Whether each operation stands with and without time reversal, which allows no moment."""

    @property
    def reading(self) -> Reading:
        """The group as a reading of the symmetry."""
        return Reading(self.operations, "the magnetic operations")

    def columns(
        self, block: Block, rows: list[Site], built: Built, lattice: NDArray[np.float64], warnings: list[str]
    ) -> dict[str, Any]:
        """The column with the moments of all sites, none where the file has no moment."""
        listed = _moments(block, warnings)
        if not listed:
            return {}
        if any(row.amount < 1 for row in rows):
            warnings.append("magnetic moments were left out: sites are partly occupied")
            return {}
        lengths = np.linalg.norm(lattice, axis=1)
        moments = [np.array(listed.get(row.label, (0.0, 0.0, 0.0))) for row in rows]
        strange = listed.keys() - {row.label for row in rows}
        warnings += [f"the moment of {label[:20]} belongs to no site and was left out" for label in sorted(strange)]
        found = []
        for owner, op in zip(built.owner.tolist(), built.operation.tolist()):
            along = self._turned(moments[owner], op, lengths)
            found.append([round(float(part), 3) + 0.0 for part in along @ (lattice / lengths[:, None])])
        for index, row in enumerate(rows):
            if not self._allows(moments[index], np.array(row.place), lengths):
                warnings.append(f"the symmetry of site {row.label} does not allow its moment")
        text = json.dumps(found, separators=(",", ":"))
        if len(text) > MAX_TEXT:
            warnings.append(f"magnetic moments were left out: {len(text)} characters, at most {MAX_TEXT}")
            return {}
        return {MOMENTS: text}

    def _turned(self, moment: NDArray[np.float64], op: int, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """A moment (3,) along the axes after an operation, as the axial vector that it is."""
        rot = self.operations.rot[op]
        sign = float(self.reversal[op]) * round(float(np.linalg.det(rot)))
        return np.asarray(sign * (rot @ (moment / lengths)) * lengths, dtype=np.float64)

    def _allows(self, moment: NDArray[np.float64], place: NDArray[np.float64], lengths: NDArray[np.float64]) -> bool:
        """Whether the operations that leave a place where it is leave its moment too."""
        gap = self.operations.rot @ place + self.operations.shift - place
        fixed = np.flatnonzero(np.abs(gap - np.round(gap)).max(axis=1) < SITE_TOLERANCE)
        turned = [self._turned(moment, op, lengths) for op in fixed.tolist()]
        kept = all(np.abs(one - moment).max() < MOMENT_TOLERANCE for one in turned)
        return not moment.any() or (kept and not self.grey)


def magnetic_group(block: Block, lattice: NDArray[np.float64]) -> Magnetic | None:
    """The magnetic space group of a block in a cell (3, 3) Å, None where it has none.

    Raises:
        Refused: when the group is given by its name only, is no group, or does not fit the cell.
        Damaged: when an item breaks the grammar.
    """
    listed = block.item(*_OPERATIONS)
    centring = block.item(*_CENTRING)
    if listed is None and centring is not None:
        message = f"line {centring.line}: {centring.tag} needs the list of magnetic operations beside it"
        raise Refused(Reason.MALFORMED, message)
    if listed is None:
        named = next((item for start in _NAMES if (item := block.holds(start)) and not is_unsaid(item.values[0])), None)
        if named is not None and not any("symop" in name or "equiv_pos" in name for name in block.items):
            raise Refused(
                Reason.UNSUPPORTED, f"line {named.line}: {named.tag}: a magnetic group needs its list of operations"
            )
        return None
    number_listed, number_centring = len(listed.values), len(centring.values) if centring else 1
    limits.check("operations", number_listed * number_centring, f"line {listed.line} and below")
    kept, reversal, grey = _combined(_parsed(listed), _parsed(centring) if centring else _IDENTITY)
    missing = kept.missing
    if missing:
        raise Refused(
            Reason.MALFORMED, f"line {listed.line} and below: the magnetic operations are no group: {missing}"
        )
    if kept.misfit(lattice) > METRIC_TOLERANCE:
        raise Refused(Reason.MALFORMED, f"line {listed.line} and below: the magnetic operations do not fit the cell")
    return Magnetic(kept, reversal, grey)


def _combined(base: _Signed, centring: _Signed) -> tuple[Operations, NDArray[np.int64], bool]:
    """Each operation with each centring once, its time reversal, and whether it has both."""
    rot = np.repeat(base[0], len(centring[0]), axis=0)
    shift = np.repeat(base[1], len(centring[1]), axis=0) + np.tile(centring[1], (len(base[1]), 1))
    reversal = np.repeat(base[2], len(centring[2])) * np.tile(centring[2], len(base[2]))
    signs: dict[str, int] = {}
    texts = [operations.as_text(*pair) for pair in zip(rot, shift)]
    grey = [signs.setdefault(text, sign) != sign for text, sign in zip(texts, reversal.tolist())]
    kept = distinct(rot, shift)
    chosen = [signs[operations.as_text(*pair)] for pair in zip(kept.rot, kept.shift)]
    return kept, np.array(chosen, dtype=np.int64), any(grey)


def _parsed(item: Item) -> _Signed:
    """Rotations, translations and time reversals of a list such as `x,y,z+1/2,-1`."""
    found, signs = [], []
    for row, value in enumerate(item.values):
        text, _, sign = value.replace(" ", "").rpartition(",")
        if sign not in ("+1", "-1", "1"):
            message = f"{value[:40]!r} is no magnetic operation: it must end in +1 or -1"
            raise Refused(Reason.MALFORMED, f"line {item.line_of(row)}: {message}")
        try:
            found.append(operations.parse([text]))
        except ValueError as error:
            raise Refused(Reason.MALFORMED, f"line {item.line_of(row)}: {error}") from None
        signs.append(int(sign))
    rot, shift = (np.concatenate(parts) for parts in zip(*((one.rot, one.shift) for one in found)))
    return rot, shift, np.array(signs, dtype=np.int64)


def _moments(block: Block, warnings: list[str]) -> dict[str, tuple[float, ...]]:
    """Moments along the axes a, b, c in Bohr magnetons, by the label of the site."""
    labels = block.item("_atom_site_moment_label")
    parts = [block.item(f"_atom_site_moment_crystalaxis_{axis}") for axis in "xyz"]
    if labels is None or any(part is None for part in parts):
        return {}
    if any(len(part.values) != len(labels.values) for part in parts if part is not None):
        raise Refused(Reason.MALFORMED, f"line {labels.line}: moments have not one component for each label")
    found = {}
    for row, label in enumerate(labels.values):
        texts = [part.values[row] for part in parts if part is not None]
        values = [number(text) for text in texts]
        if any(value is None and not is_unsaid(text) for text, value in zip(texts, values)):
            warnings.append(f"the moment of {label} is no number and was left out")
            continue
        found[label] = tuple(0.0 if value is None else value for value in values)
    return found
