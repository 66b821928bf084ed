"""How fast are crystals relaxed, beside CHGNet's own optimizer and ASE with the same potential?

Enters: numbers of crystals. Leaves: a table and one JSON file. The crystals are hypothetical, with
guessed cells whose atoms are displaced by 0.08 Å. All contestants take CHGNet 0.3.0 and stop at
forces of 0.05 eV/Å; ours also bounds the stress. CPU time of one thread, one call each, without the
time to load the weights. Volumes are compared where two contestants arrived.

    python benchmarks/relaxation.py --help
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring.stopwatch import ROOT, machine, say, settle, show, versions, write

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

DISPLACED = 0.08
"""Å, deviation of each coordinate."""
FMAX, STEPS = 0.05, 300


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--crystals", type=int, default=24, help="how many (default: 24)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/relaxation.json", help="JSON file")
    options = parser.parse_args(words)
    settle()
    crystals = displaced(options.crystals)
    found = {name: timed(run, crystals) for name, run in CONTESTANTS.items()}
    ours = found["assay"]
    lines = [
        [
            name,
            f"{one['cpu_s'] / len(crystals):.2f}",
            f"{one['cpu_s'] / ours['cpu_s']:.1f}",
            f"{np.isfinite(one['volume']).sum()} of {len(crystals)}",
            f"{np.nanmean(one['steps']):.0f}",
            f"{100 * np.nanmedian(abs(one['volume'] / ours['volume'] - 1)):.2f}",
        ]
        for name, one in found.items()
    ]
    head = ["", "CPU s per crystal", "ratio", "arrived", "steps", "median difference in volume, %"]
    show(f"{len(crystals)} hypothetical crystals, {np.mean(crystals.nsites):.1f} atoms on average", head, lines)
    report = {name: {key: np.asarray(value).tolist() for key, value in one.items()} for name, one in found.items()}
    write({"machine": machine(), "versions": versions("chgnet", "ase", "torch"), **report}, options.output)


def displaced(n: int) -> Crystals:
    """Hypothetical crystals that CHGNet knows, with displaced atoms."""
    from dataclasses import replace

    from assay.models.potentials import potential
    from assay.sources import prototypes
    from assay.sources.crystals import wrap

    found = prototypes.generate(20 * n)
    rows, _ = potential.known(potential.load("chgnet"), found)
    found = found.select(rows[:: len(rows) // n][:n])
    shift = np.random.default_rng(0).normal(scale=DISPLACED, size=found.frac.shape)
    back = np.linalg.inv(found.lattice)[found.site_crystal]
    return replace(found, frac=wrap(found.frac + np.einsum("si,sij->sj", shift, back)))


def timed(run: Any, crystals: Crystals) -> dict[str, Any]:
    """CPU time of one contestant; steps and volumes (n,), NaN where a crystal did not arrive."""
    run(crystals[:1])  # weights, compilers
    began = time.process_time()
    steps, volume = run(crystals)
    spent = time.process_time() - began
    say(f"{run.__name__}: {spent:.1f} s")
    return {"cpu_s": spent, "steps": steps, "volume": volume}


def ours(crystals: Crystals) -> tuple[Any, Any]:
    """All at once."""
    from assay.models.potentials import potential, relax

    found = relax.relax(crystals, potential.load("chgnet"), relax.Settings(fmax=FMAX, steps=STEPS))
    steps, volume = np.full(len(crystals), np.nan), np.full(len(crystals), np.nan)
    steps[found.index], volume[found.index] = found.steps, found.crystals.volume
    return steps, volume


def optimizer(crystals: Crystals) -> tuple[Any, Any]:
    """`StructOptimizer` of chgnet, one after the other."""
    from chgnet.model import StructOptimizer

    from assay.sources.formats.convert import to_pymatgen

    relaxer, ends = StructOptimizer(optimizer_class="FIRE", use_device="cpu"), []
    for structure in to_pymatgen(crystals):
        done = relaxer.relax(structure, fmax=FMAX, steps=STEPS, verbose=False)
        arrived = len(done["trajectory"]) <= STEPS
        ends.append((len(done["trajectory"]), done["final_structure"].volume if arrived else np.nan))
    steps, volume = zip(*ends, strict=True)
    return np.array(steps, float), np.array(volume)


def ase(crystals: Crystals) -> tuple[Any, Any]:
    """FIRE of ASE on its filter for cells, with our calculator's energies, one after the other."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE
    from chgnet.model import CHGNetCalculator

    from assay.sources.formats.convert import to_ase

    calculator, ends = CHGNetCalculator(use_device="cpu"), []
    for atoms in to_ase(crystals):
        atoms.calc = calculator
        mover = FIRE(FrechetCellFilter(atoms), logfile=None)
        arrived = mover.run(fmax=FMAX, steps=STEPS)
        ends.append((mover.nsteps, atoms.get_volume() if arrived else np.nan))
    steps, volume = zip(*ends, strict=True)
    return np.array(steps, float), np.array(volume)


CONTESTANTS = {"assay": ours, "StructOptimizer": optimizer, "ASE": ase}

if __name__ == "__main__":
    main()
