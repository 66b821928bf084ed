"""What Assay makes of changed CIFs, against the independent reading."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from assay.sources import files

from .cif_mutations import Mutant, independent
from .settings_crystals import composition
from .settings_judge import arrays


class Fate(StrEnum):
    """What became of a changed file."""

    REFUSED = "refused"
    AGREED = "read, as the independent reading says"
    WARNED = "read, with a warning"
    UNCHANGED = "read as before the change; the independent reading says nothing"
    DIFFERENT = "read in silence, with another composition than the independent reading"
    UNKNOWN = "read in silence, with another composition than before; the independent reading says nothing"
    RAISED = "an exception left the reader"


@dataclass(frozen=True)
class Reading:
    """One changed file and its fate."""

    mutant: Mutant
    fate: Fate
    seconds: float
    message: str


def judge_mutants(mutants: Sequence[Mutant], folder: Path) -> list[Reading]:
    """Read each changed file by itself, so that an exception or a slow file is seen."""
    return [_read(mutant, folder / f"{number}.cif") for number, mutant in enumerate(mutants)]


def _read(mutant: Mutant, path: Path) -> Reading:
    path.write_bytes(mutant.text.encode())
    start = time.monotonic()
    try:
        crystals, refused = files.read_many([path])
    except Exception as error:  # noqa: BLE001 - any exception is the defect that is looked for
        return Reading(mutant, Fate.RAISED, time.monotonic() - start, f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - start
    if not len(crystals):
        message = "; ".join(record.message for record in refused)
        return Reading(mutant, Fate.REFUSED if message else Fate.RAISED, seconds, message or "no crystal and no record")
    return Reading(mutant, _fate(mutant, crystals), seconds, _said(mutant, crystals))


def _fate(mutant: Mutant, crystals: Any) -> Fate:
    if any(crystals.columns.get("warnings", ())):
        return Fate.WARNED
    read, known = _composition(crystals), independent(mutant.text)
    if known is not None:
        return Fate.AGREED if _same(read, known) else Fate.DIFFERENT
    return Fate.UNCHANGED if _same(read, mutant.original) else Fate.UNKNOWN


def _said(mutant: Mutant, crystals: Any) -> str:
    warnings = str(crystals.columns["warnings"][0]) if "warnings" in crystals.columns else ""
    return f"read {_composition(crystals)}, independently {independent(mutant.text)}; warnings {warnings!r}"


def _composition(crystals: Any) -> dict[str, float]:
    _, elements, occupancy, _ = arrays(crystals, 0)
    return composition(elements, occupancy)


def _same(one: dict[str, float], other: dict[str, float]) -> bool:
    names = {name for amounts in (one, other) for name, amount in amounts.items() if amount}
    return all(abs(one.get(name, 0) - other.get(name, 0)) < 0.01 * max(1, one.get(name, 0)) for name in names)
