"""Energies, forces and stresses of a teacher, in parts of fixed size that are kept on disk.

Enters: `Crystals` and a `Potential`. Leaves: a folder of safetensors files, one per part, and
`Labels` read back from it. A part that is there is not made again, so labelling can stop at any
time, and several processes can share the parts. This module does not know how crystals were chosen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load, save

from assay.models.networks.tensors import header
from assay.models.potentials.potential import Potential, Scale, known
from assay.sources.crystals import Crystals, concat, gather_ranges, text_array
from assay.sources.durable import whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

PART = 256
"""Crystals in a part."""
_CRYSTALS = ("lattice", "site_ptr", "frac", "numbers")
"""What is kept of ordered crystals."""
_TOLD = "labels"
"""The one key of the metadata: safetensors 0.8 writes several in an order that changes."""


@dataclass(frozen=True)
class Labels:
    """n crystals with what a teacher says of them."""

    crystals: Crystals
    energy: NDArray[np.float64]
    """(n,) eV per cell."""
    forces: NDArray[np.float64]
    """(S, 3) eV/Å."""
    stress: NDArray[np.float64]
    """(n, 3, 3) eV/Å^3."""
    scale: Scale
    """Of the energies."""

    def select(self, rows: NDArray[np.int64]) -> Labels:
        """Some of them."""
        some = self.crystals.select(rows)
        sites, _ = gather_ranges(self.crystals.site_ptr, rows)
        return Labels(some, self.energy[rows], self.forces[sites], self.stress[rows], self.scale)


def part_path(folder: Path, part: int) -> Path:
    """Where a part is kept."""
    return folder / f"part-{part:05}.safetensors"


def label(crystals: Crystals, teacher: Potential, folder: Path, parts: Iterable[int]) -> None:
    """Label some parts of the crystals; what the teacher cannot say stands in the part as NaN."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        path = part_path(folder, part)
        if not path.exists():
            some = crystals.select(np.arange(part * PART, min((part + 1) * PART, len(crystals))))
            rows, _ = known(teacher, some)
            some = some.select(rows)
            found = teacher.evaluate(some)
            arrays = {name: getattr(some, name) for name in _CRYSTALS}
            arrays |= {name: getattr(found, name) for name in ("energy", "forces", "stress")}
            told = {"teacher": teacher.name, "version": teacher.version, **asdict(teacher.scale)}
            told = {_TOLD: json.dumps({**told, "ids": some.ids.tolist()})}
            content = save({name: np.ascontiguousarray(values) for name, values in arrays.items()}, told)
            with whole(path) as file:
                file.write(content)


def read(folder: Path, parts: Iterable[int]) -> Labels:
    """The labels of some parts, without the crystals of which the teacher could not say anything.

    Raises:
        FileNotFoundError: when a part is missing.
        ValueError: when a part is damaged, or parts have energies on unlike scales.
    """
    found = [_read(part_path(folder, part)) for part in parts]
    scales = {labels.scale for labels in found}
    if len(scales) != 1:
        raise ValueError(f"{folder} has energies on {len(scales)} scales, expected one: {', '.join(map(str, scales))}")
    energy, forces, stress = (
        np.concatenate([getattr(labels, name) for labels in found]) for name in ("energy", "forces", "stress")
    )
    return Labels(concat([labels.crystals for labels in found]), energy, forces, stress, scales.pop())


def _read(path: Path) -> Labels:
    """The labels of one part."""
    content = path.read_bytes()
    header(content, path)  # refuses a file that is cut
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    if _TOLD not in metadata:
        raise ValueError(f"{path} holds no labels: assay distil did not write it")
    told: dict[str, Any] = json.loads(metadata[_TOLD])
    arrays = load(content)
    sites = np.arange(len(arrays["numbers"]) + 1)
    occupancy = np.ones(len(arrays["numbers"]), np.float32)
    lattice, site_ptr, frac, numbers = (arrays[name] for name in _CRYSTALS)
    crystals = Crystals(text_array(told["ids"]), lattice, site_ptr, frac, sites, numbers, occupancy)
    scale = Scale(told["functional"], told["reference"])
    every = Labels(crystals, arrays["energy"], arrays["forces"], arrays["stress"], scale)
    return every.select(np.flatnonzero(np.isfinite(every.energy) & np.isfinite(every.stress).all(axis=(1, 2))))
