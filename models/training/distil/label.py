"""Energies, forces and stresses of a teacher, in parts of fixed size that are kept on disk.

Enters: `Crystals` and a `Potential`. Leaves: a folder of safetensors files, one per part; `Labels`
and records of refused crystals, read back from it. A part that is there is not made again, so
labelling can stop at any time, and several processes can share the parts. This module does not know
how crystals were chosen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load, save

from assay.models.networks.tensors import header
from assay.models.potentials.potential import Potential, Scale
from assay.sources.crystals import Crystals, concat, gather_ranges, text_array
from assay.sources.durable import whole
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
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


def label(
    crystals: Crystals,
    teacher: Potential,
    folder: Path,
    parts: Iterable[int],
    moved: Callable[[Crystals], Crystals] = lambda some: some,
) -> None:
    """Label some parts of crystals that are ordered, right-handed and of the teacher's elements.

    The crystals of a part are `moved` first. What the teacher cannot say stands there as NaN, with
    the teacher's message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        path = part_path(folder, part)
        if not path.exists():
            some = moved(crystals.select(np.arange(part * PART, min((part + 1) * PART, len(crystals)))))
            found = teacher.evaluate(some)
            arrays = {name: getattr(some, name) for name in _CRYSTALS}
            arrays |= {name: getattr(found, name) for name in ("energy", "forces", "stress")}
            told = {"teacher": teacher.name, "version": teacher.version, **asdict(teacher.scale)}
            told |= {"ids": some.ids.tolist()} | ({"failed": dict(found.failed)} if found.failed else {})
            content = save(
                {name: np.ascontiguousarray(values) for name, values in arrays.items()}, {_TOLD: json.dumps(told)}
            )
            with whole(path) as file:
                file.write(content)


def parts_of(crystals: Crystals) -> int:
    """How many parts they make."""
    return -(-len(crystals) // PART)


def read(output: Path, where: str, largest: float) -> tuple[Labels, list[Quarantined]]:
    """The labels in the folder `where` below `output`, and a record of each crystal without one.

    A force longer than `largest` (eV/Å) makes a label useless. The origin in a record is the file
    that holds the crystal, from `output` on.

    Raises:
        FileNotFoundError: when there are none.
        ValueError: when a part is damaged, or parts have energies on unlike scales.
    """
    paths = sorted((output / where).glob("part-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{output / where} holds no labels")
    labels, refused = zip(*(_read(path, f"{where}/{path.name}", largest) for path in paths), strict=True)
    return joined(labels), [record for records in refused for record in records]


def joined(labels: Sequence[Labels]) -> Labels:
    """Labels one behind the other.

    Raises:
        ValueError: when their energies are on unlike scales.
    """
    scales = {one.scale for one in labels}
    if len(scales) != 1:
        raise ValueError(f"labels have energies on {len(scales)} scales, expected one: {', '.join(map(str, scales))}")
    energy, forces, stress = (
        np.concatenate([getattr(one, name) for one in labels]) for name in ("energy", "forces", "stress")
    )
    return Labels(concat([one.crystals for one in labels]), energy, forces, stress, scales.pop())


def _read(path: Path, origin: str, largest: float) -> tuple[Labels, list[Quarantined]]:
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
    longest = np.maximum.reduceat(np.linalg.norm(every.forces, axis=1), site_ptr[:-1])
    longest[~(np.isfinite(every.energy) & np.isfinite(every.stress).all(axis=(1, 2)))] = np.nan
    fits = longest <= largest
    refused = [
        Quarantined(str(crystals.ids[row]), origin, Stage.PREDICT, *_why(row, told.get("failed", {}), longest, largest))
        for row in np.flatnonzero(~fits).tolist()
    ]
    return every.select(np.flatnonzero(fits)), refused


def _why(row: int, failed: Mapping[str, str], longest: NDArray[np.float64], largest: float) -> tuple[Reason, str]:
    if str(row) in failed:
        return Reason.PREDICTION_FAILED, failed[str(row)]
    if np.isnan(longest[row]):
        return Reason.EXPLODED, "energy, forces or stress are not finite"
    return Reason.EXPLODED, f"a force is {longest[row]:.3g} eV/Å long, expected at most {largest:g} (largest_force)"
