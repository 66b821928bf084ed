"""How fast are energies above the hull, beside pymatgen, and is `p_stable` the chance it says?

Enters: the Materials Project and WBM tables of `ASSAY_DATA`. Leaves: three tables and one JSON
file. Both
contestants know the same phases and answer for the same crystals: the hull energy and the
competing phases of each. pymatgen gets the phases of each chemical system ready to use, and its
time is that of the diagram and the queries; ours holds the choice of the phases too. CPU time of
one thread. For the second table crystals of the test split of the bundled ensemble are taken out of
the hull, and their true energies say which of them are stable. The third table compares energies
above the hull by the bundled ensemble and by the bundled force field with those of DFT, for
crystals of WBM that neither has learned from.

    python benchmarks/hull.py --help
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring.stopwatch import ROOT, CommandLine, machine, say, settle, show, versions, write

if TYPE_CHECKING:
    from assay.sources.datasets import Dataset

THRESHOLD = 0.05
"""eV/atom."""
EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = CommandLine(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--systems", type=int, default=300, help="chemical systems (default: 300)")
    parser.add_argument("--crystals", type=int, default=3000, help="test crystals for p_stable (default: 3000)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/hull.json", help="JSON file")
    parser.add_argument("--wbm", action="store_true", help="the third table alone")
    options = parser.read(words, systems=60, crystals=600)
    settle()
    from assay.sources import datasets

    known = datasets.load("mp-formation-energy")
    report: dict[str, Any] = {}
    if not options.wbm:
        report = {"speed": speed(known, options.systems), "p_stable": reliability(known, options.crystals)}
    report["wbm"] = beside_dft(known)
    write({"machine": machine(), "versions": versions("pymatgen", "numba", "scipy"), **report}, options.output)


def speed(known: Dataset, systems: int) -> dict[str, Any]:
    """Seconds of both contestants for the crystals of some systems, and their difference."""
    amounts = known.crystals.composition()
    names, system = np.unique(known.groups, return_inverse=True)
    chosen = np.random.default_rng(0).choice(len(names), systems, replace=False)
    rows = [np.flatnonzero(system == number) for number in chosen]
    asked = np.concatenate(rows)
    ours, energy = _ours(known, amounts, asked)
    theirs, expected, phases = _pymatgen(known, amounts, rows)
    per = 1e6 / len(asked)
    lines = [
        ["assay", f"{ours['build']:.2f}", f"{per * ours['ask']:.0f}", "1"],
        ["pymatgen", "–", f"{per * theirs:.0f}", f"{theirs / ours['ask']:.0f}"],
    ]
    title = f"{len(asked)} crystals of {systems} systems, {phases / systems:.0f} phases per system"
    show(title, ["", "s to build", "µs per crystal", "ratio"], lines)
    worst = float(np.abs(energy - expected).max())
    say(f"largest difference of a hull energy: {worst:.1e} eV/atom")
    return {"crystals": len(asked), "assay": ours, "pymatgen": theirs, "difference": worst, "phases": phases / systems}


def _ours(known: Dataset, amounts: Any, asked: Any) -> tuple[dict[str, float], Any]:
    from assay.models.stability.hull import Hull, Phases

    began = time.process_time()
    hull = Hull(Phases.of(known.crystals.ids, amounts, known.target))
    built = time.process_time() - began
    hull.texts(hull.mixtures(amounts[:2]))  # compilers
    began = time.process_time()
    found = hull.mixtures(amounts[asked])
    hull.texts(found)
    return {"build": built, "ask": time.process_time() - began}, found.energy


def _pymatgen(known: Dataset, amounts: Any, rows: list[Any]) -> tuple[float, Any, int]:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    from assay.sources.elements import SYMBOLS

    spent, energy, phases = 0.0, [], 0
    for some in rows:
        elements = np.flatnonzero(amounts[some[0]])
        inside = np.flatnonzero(~np.delete(amounts, elements, axis=1).any(axis=1))
        points = {
            row: Composition({SYMBOLS[z]: amounts[row, z] for z in np.flatnonzero(amounts[row])}) for row in inside
        }
        entries = [PDEntry(point, known.target[row] * point.num_atoms) for row, point in points.items()]
        entries += [PDEntry(Composition(SYMBOLS[z]), 0.0) for z in elements]
        phases += len(entries)
        began = time.process_time()
        diagram = PhaseDiagram(entries)
        for row in some:
            parts = diagram.get_decomposition(points[row])
            energy.append(sum(entry.energy_per_atom * part for entry, part in parts.items()))
        spent += time.process_time() - began
    return spent, np.array(energy), phases


def reliability(known: Dataset, most: int) -> list[dict[str, float]]:
    """How many crystals are stable, by the probability that is said of them."""
    from assay.models.ensemble import zoo
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.stability.hull import Hull, Phases
    from assay.screening.folder.summary import Target
    from assay.screening.ranking.rules import Probability
    from assay.screening.settings.choice import Rank

    folder = zoo.find("formation-energy")
    test = set(json.loads((folder / "split.json").read_text())["test"])
    rows = np.array([row for row, name in enumerate(known.crystals.ids.tolist()) if name in test])
    rows = np.sort(np.random.default_rng(0).choice(rows, min(most, len(rows)), replace=False))
    amounts, other = known.crystals.composition(), np.setdiff1d(np.arange(len(known.target)), rows)
    hull = Hull(Phases.of(known.crystals.ids[other], amounts[other], known.target[other]))
    predicted, _ = Ensemble.load(folder).predict(known.crystals.select(rows))
    rows, value = rows[predicted.index], predicted.values["formation_energy"]
    lowest = hull.mixtures(amounts[rows]).energy
    settings = Rank(by="probability", threshold=THRESHOLD, order="ascending")
    rule = Probability(settings, Target("", "", "eV/atom", calibrated=True))
    chance = rule.score({"mean": value.mean - lowest, "std": value.std, "hi": value.hi - lowest})
    stable = known.target[rows] - lowest <= THRESHOLD
    found = []
    for low, high in pairwise(EDGES):
        here = (chance >= low) & ((chance < high) | (high == 1.0))
        found.append(
            {
                "from": low,
                "to": high,
                "crystals": int(here.sum()),
                "said": chance[here].mean(),
                "stable": stable[here].mean(),
            }
        )
    lines = [
        [f"{one['from']:g} to {one['to']:g}", f"{one['crystals']:,}", f"{one['said']:.3f}", f"{one['stable']:.3f}"]
        for one in found
    ]
    show("p_stable at 0.05 eV/atom", ["p_stable", "crystals", "mean p_stable", "share that is stable"], lines)
    return found


def beside_dft(known: Dataset) -> dict[str, dict[str, float]]:
    """Errors of energies above the hull on WBM; its DFT energies get the hull's corrections."""
    from assay.models.ensemble import zoo
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.potentials import potential as potentials, relax
    from assay.models.stability.hull import Hull, Phases
    from assay.screening.campaign import reference
    from assay.screening.settings.config import Stability
    from assay.sources import datasets, table

    path = datasets.folder() / "potentials/wbm_pbe_relaxed.parquet"
    crystals, _ = table.from_table(table.read(path), "wbm")
    potential, ensemble = potentials.load("potential"), Ensemble.load(zoo.find("formation-energy"))
    settings = Stability(hull="mp-formation-energy", energy="potential")
    formation = reference.of_potential(settings, potential).formation
    assert formation is not None
    relaxed = relax.relax(crystals, potential)
    rows = relaxed.index
    ours = formation.columns(relaxed.crystals, relaxed.energy / relaxed.crystals.nsites, potential)
    dft = formation.columns(crystals, crystals.columns["energy"] / crystals.nsites, potential)
    hull = Hull(Phases.of(known.crystals.ids, known.crystals.composition(), known.target))
    lowest = hull.mixtures(crystals.composition()).energy
    true = (dft["relaxed_formation_energy_mean"] - lowest)[rows]
    by = {"potential": (ours["relaxed_formation_energy_mean"], ours["relaxed_formation_energy_std"])}
    for name, seen in (
        ("ensemble, cells of DFT", crystals.select(rows)),
        ("ensemble, cells of the potential", relaxed.crystals),
    ):
        predicted, _ = ensemble.predict(seen)
        assert len(predicted.index) == len(rows)
        value = predicted.values["formation_energy"]
        by[name] = value.mean, value.std
    found = {name: _judged(mean - lowest[rows], std, true) for name, (mean, std) in by.items()}
    keys = [*next(iter(found.values()))]
    lines = [[name, *(f"{one[key]:.3f}" for key in keys)] for name, one in found.items()]
    show(f"{len(rows)} crystals of WBM beside DFT, hull of mp-formation-energy (eV/atom)", ["energy by", *keys], lines)
    return found


def _judged(above: Any, std: Any, true: Any) -> dict[str, float]:
    """Errors, and how well crystals at most `THRESHOLD` above the hull are told from others."""
    from scipy.stats import norm

    sound = np.isfinite(true) & np.isfinite(above)
    above, std, true = above[sound], std[sound], true[sound]
    off, said, stable = above - true, above <= THRESHOLD, true <= THRESHOLD
    chance = norm.cdf(THRESHOLD, above, std)
    return {
        "MAE": abs(off).mean(),
        "median": np.median(abs(off)),
        "bias": off.mean(),
        "within 1 std": (abs(off) < std).mean(),
        "stable": stable.mean(),
        "said": said.mean(),
        "mean p_stable": chance.mean(),
        "precision": (said & stable).sum() / max(said.sum(), 1),
        "recall": (said & stable).sum() / max(stable.sum(), 1),
    }


if __name__ == "__main__":
    main()
