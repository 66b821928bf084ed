"""Checks of a force field: on which crystals, and how the answers are told.

Enters: a potential, and crystals, or none where hypothetical ones will do. Leaves: the lines of a
table, and an object for a JSON file. This module does not know how a check is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.featurize.elements import HEAVIEST, properties, property_names
from assay.models.potentials import probes
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.printable import escaped
from assay.sources import durable, prototypes
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from assay.models.potentials.check import Check, Checked, Settings
    from assay.models.potentials.potential import Potential

ENOUGH = 24
"""Crystals of a check that nobody chose crystals for."""
NARROWEST = 2.5
"""Å, edge of the smallest cell of one element that a potential is asked about."""
SHOWN = 20
SWING = 100.0
"""fs; atoms of most crystals swing in 50 to 200."""


def bundled(potential: Potential, seed: int, n: int = ENOUGH) -> Crystals:
    """Up to `n` ordered hypothetical crystals of elements that a potential answers for.

    Structure types take turns. A potential answers for an element when it evaluates its simple
    cubic crystal: those of ASE do not say which elements they know.

    Raises:
        ValueError: when there is none.
    """
    numbers = np.array([z for z in sorted(potential.elements) if z <= HEAVIEST], np.int64)
    answers = np.isfinite(potential.evaluate(_simple_cubic(numbers)).energy)
    symbols = [SYMBOLS[z] for z in numbers[answers]]
    some = prototypes.generate(min(10 * n, prototypes.count(elements=symbols)), seed, elements=symbols)
    ordered = np.flatnonzero(some.is_ordered)[:n]
    if not len(ordered):
        known = ", ".join(symbols) or "no element"
        raise ValueError(
            f"{potential.name} answers for {known}, of which no hypothetical crystal is made: give --crystals"
        )
    return some.select(ordered)


def _simple_cubic(numbers: NDArray[np.int64]) -> Crystals:
    """Crystals of one atom, of elements that touch each other or nearly so.

    Hydrogen that touches would have thousands of neighbours, for which CHGNet takes 18 GB.
    """
    n = len(numbers)
    edges = np.maximum(2 * properties()[numbers, property_names().index("covalent_radius")], NARROWEST)
    one, ids = np.arange(n + 1), np.array([f"element/{z}" for z in numbers], object)
    return Crystals(ids, edges[:, None, None] * np.eye(3), one, np.zeros((n, 3)), one, numbers, np.ones(n))  # type: ignore[arg-type]


def lines(found: Checked) -> Iterator[str]:
    """A table with one line for each check: values in the middle and at worst, limit, failures."""
    yield f"{'check':<18}{'median':>10}{'largest':>10}{'limit':>8}{'failed':>10}  unit and meaning"
    for one in (*found.checks, found.pairs):
        sizes = one.value[np.isfinite(one.value)]
        ends = (
            [digits.alone(v) for v in (np.median(abs(sizes)), sizes[abs(sizes).argmax()])] if len(sizes) else [""] * 2
        )
        limit = "" if one.limit is None else f"{one.limit:g}"
        failed = f"{len(one.failed)} of {one.asked}"
        meaning = f"{one.unit}, {one.meaning}" if one.unit else one.meaning
        yield f"{one.name:<18}{ends[0]:>10}{ends[1]:>10}{limit:>8}{failed:>10}  {meaning}"


def too_short(settings: Settings) -> str:
    """What to know of runs that are over before an atom has swung once; nothing of longer ones."""
    lasted = settings.steps * settings.timestep
    if lasted >= SWING:
        return ""
    return (
        f"each run of dynamics lasts {lasted:g} fs, and an atom may take {SWING:g} fs to swing once: temperatures and "
        "nve_drift are those of a part of a swing, and say little; give more --steps"
    )


def failures(found: Checked, most: int = SHOWN) -> Iterator[str]:
    """One line about each of the first failures."""
    formulas = found.crystals.formulas()
    every = [
        f"{escaped(str(found.crystals.ids[row]))} {formulas[row]}: {one.name}: {said}"
        for one in found.checks
        for row, said in sorted(one.failed.items())
    ]
    every += [f"{found.dimers.names[row]}: dimers: {said}" for row, said in sorted(found.pairs.failed.items())]
    yield from every[:most]
    if len(every) > most:
        yield f"... and {len(every) - most:,} more"


def judge(found: Checked, name: str, max_bad: float) -> None:
    """Let a potential pass whose checks failed for few crystals each.

    Raises:
        Failure: TOO_MANY_BAD, when more than the share `max_bad` of some check failed.
    """
    bad = [one for one in (*found.checks, found.pairs) if len(one.failed) > max_bad * one.asked]
    if bad:
        said = ", ".join(f"{one.name} of {len(one.failed)} in {one.asked}" for one in bad)
        raise Failure(
            Exit.TOO_MANY_BAD, f"{name} failed more than --max-bad {max_bad:g}: {said}; the reasons are above"
        )


def check_output(path: Path) -> None:
    """Check that a report can be written to a path, before there is one.

    Raises:
        Failure: USAGE, when the name does not end in .json; CONFIG, when a file is there that is
            no report of a check.
    """
    if path.suffix.lower() != ".json":
        raise Failure(Exit.USAGE, f"--output {path}: the report is written as .json")
    if not path.exists() and not path.is_symlink():
        return
    try:
        ours = "potential" in json.loads(path.read_text(encoding="utf-8")).get("checked", {})
    except (OSError, ValueError, AttributeError, TypeError):
        ours = False
    if not ours:
        raise Failure(Exit.CONFIG, f"{path} is there and holds no check of a potential; choose another --output")


def write(found: Checked, potential: Potential, settings: Settings, path: Path) -> None:
    """Write every value of every crystal and pair, with the curves behind them."""
    report = {
        "checked": {"potential": potential.name, "scale": str(potential.scale), **asdict(settings)},
        "checks": [_summary(one) for one in (*found.checks, found.pairs)],
        "crystals": [_crystal(found, row) for row in range(len(found.crystals))],
        "volumes": probes.VOLUMES.tolist(),
        "dimers": [_dimer(found, row) for row in range(len(found.dimers.names))],
    }
    durable.write(path, f"{json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)}\n")


def _summary(one: Check) -> dict[str, Any]:
    facts = {"name": one.name, "unit": one.unit, "meaning": one.meaning, "limit": one.limit}
    return {**facts, "asked": one.asked, "failed": len(one.failed)}


def _crystal(found: Checked, row: int) -> dict[str, Any]:
    crystals = found.crystals
    return {
        "id": str(crystals.ids[row]),
        "formula": str(crystals.formulas()[row]),
        "nsites": int(crystals.nsites[row]),
        **{one.name: _finite([one.value[row]])[0] for one in found.checks},
        "failed": {one.name: one.failed[row] for one in found.checks if row in one.failed},
        "energy_per_atom": _finite(found.curves.get(row, ())),
    }


def _dimer(found: Checked, row: int) -> dict[str, Any]:
    distances = (probes.DISTANCES * found.dimers.length[row]).round(4).tolist()
    energies = _finite(found.dimers.energy[row])
    return {
        "pair": found.dimers.names[row],
        "distances": distances,
        "energies": energies,
        "failed": found.pairs.failed.get(row),
    }


def _finite(values: Sequence[float] | NDArray[np.float64]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [float(value) if math.isfinite(value) else None for value in values]
