"""The magnetic part of an mCIF: operations with time reversal, and moments.

Enters: a block of `grammar`. Leaves: the operations of the magnetic space group in all their
cell, and the moments of all sites. The dictionary is magCIF of the International Union of
Crystallography. This module does not know atoms.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks.texts import MAX_TEXT
from assay.sources.formats.cif import operations
from assay.sources.formats.cif.build import Built
from assay.sources.formats.cif.grammar import Block, Item, is_unsaid
from assay.sources.formats.cif.operations import METRIC_TOLERANCE, Operations, distinct
from assay.sources.formats.cif.sites import Site, number
from assay.sources.formats.cif.species import Refused
from assay.sources.formats.cif.symmetry import Reading
from assay.sources.quarantine import Reason

MOMENTS = "magnetic_moments"
"""Column with the moments: JSON, one [x, y, z] in Bohr magnetons per site, Cartesian."""
_OPERATIONS = ("_space_group_symop_magn_operation_xyz",)
_CENTRING = ("_space_group_symop_magn_centering_xyz",)
_NAMES = ("_space_group_magn_", "_magnetic_space_group_")


@dataclass(frozen=True, eq=False)
class Magnetic:
    """A magnetic space group: operations and the time reversal of each."""

    operations: Operations
    reversal: NDArray[np.int64]
    """(n,) +1, or -1 where an operation turns all moments around as well."""

    @property
    def reading(self) -> Reading:
        """The group as a reading of the symmetry."""
        return Reading(self.operations, "the magnetic operations")

    def columns(
        self, block: Block, rows: list[Site], built: Built, lattice: NDArray[np.float64], warnings: list[str]
    ) -> dict[str, Any]:
        """The column with the moments of all sites, none where the file has no moment."""
        listed = _moments(block)
        if not listed:
            return {}
        if any(row.amount < 1 for row in rows):
            warnings.append("magnetic moments were left out: sites are partly occupied")
            return {}
        unit = lattice / np.linalg.norm(lattice, axis=1)[:, None]
        lengths = np.linalg.norm(lattice, axis=1)
        found = []
        for owner, op in zip(built.owner.tolist(), built.operation.tolist()):
            rot = self.operations.rot[op]
            sign = float(self.reversal[op]) * round(float(np.linalg.det(rot)))
            along = sign * (rot @ (np.array(listed.get(rows[owner].label, (0.0, 0.0, 0.0))) / lengths)) * lengths
            found.append([round(float(part), 3) + 0.0 for part in along @ unit])
        text = json.dumps(found, separators=(",", ":"))
        if len(text) > MAX_TEXT:
            warnings.append(f"magnetic moments were left out: {len(text)} characters, at most {MAX_TEXT}")
            return {}
        return {MOMENTS: text}


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
    base, sign = _parsed(listed)
    shifts, turns = _parsed(centring) if centring else (operations.parse(["x,y,z"]), np.ones(1, np.int64))
    rot = np.repeat(base.rot, len(shifts), axis=0)
    shift = np.repeat(base.shift, len(shifts), axis=0) + np.tile(shifts.shift, (len(base), 1))
    reversal = np.repeat(sign, len(shifts)) * np.tile(turns, len(base))
    kept = distinct(rot, shift)
    if len(kept) < len(rot):  # a grey group holds each operation with and without time reversal
        first = _first_of(rot, shift, kept)
        reversal = reversal[first]
    missing = kept.missing
    if missing:
        raise Refused(
            Reason.MALFORMED, f"line {listed.line} and below: the magnetic operations are no group: {missing}"
        )
    if kept.misfit(lattice) > METRIC_TOLERANCE:
        raise Refused(Reason.MALFORMED, f"line {listed.line} and below: the magnetic operations do not fit the cell")
    return Magnetic(kept, reversal)


def _first_of(rot: NDArray[np.int64], shift: NDArray[np.float64], kept: Operations) -> list[int]:
    wanted = [operations.as_text(kept.rot[k], kept.shift[k]) for k in range(len(kept))]
    every = [operations.as_text(rot[k], shift[k]) for k in range(len(rot))]
    return [every.index(text) for text in wanted]


def _parsed(item: Item) -> tuple[Operations, NDArray[np.int64]]:
    """Operations and time reversals of a list such as `x,y,z+1/2,-1`."""
    texts, signs = [], []
    for row, value in enumerate(item.values):
        text, _, sign = value.replace(" ", "").rpartition(",")
        if sign not in ("+1", "-1", "1"):
            message = f"{value!r} is no magnetic operation: it must end in +1 or -1"
            raise Refused(Reason.MALFORMED, f"line {item.line_of(row)}: {message}")
        texts.append(text)
        signs.append(int(sign))
    try:
        found = operations.parse(texts)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"line {item.line} and below: {error}") from None
    if len(found) < len(signs):
        each = [operations.parse([text]) for text in texts]
        first = _first_of(np.concatenate([e.rot for e in each]), np.concatenate([e.shift for e in each]), found)
        signs = [signs[k] for k in first]
    return found, np.array(signs, dtype=np.int64)


def _moments(block: Block) -> dict[str, tuple[float, ...]]:
    """Moments along the axes a, b, c in Bohr magnetons, by the label of the site."""
    labels = block.item("_atom_site_moment_label")
    parts = [block.item(f"_atom_site_moment_crystalaxis_{axis}") for axis in "xyz"]
    if labels is None or any(part is None for part in parts):
        return {}
    found = {}
    for row, label in enumerate(labels.values):
        values = [number(part.values[row]) for part in parts if part is not None]
        found[label] = tuple(0.0 if value is None else value for value in values)
    return found
