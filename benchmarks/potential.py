"""How fast are energies, forces, stresses and relaxations, beside peers, and are cells right then?

Enters: numbers of crystals. Leaves: tables and one JSON file. The crystals are hypothetical, with
guessed cells that are strained by 3 % and whose atoms are displaced by 0.08 Å. CPU time of one
thread in one process, without the time to load weights. Slow contestants get the first few of the
crystals. All relax to forces of 0.05 eV/Å; ours bounds the stress too. `student` is one network of
the bundled potential, `potential` the mean of all. Nequix and torch-sim take part where they are
installed; torch-sim drives the student.

With `--known` another question is asked (it needs ASSAY_DATA): do guessed cells of known crystals
come back? A known crystal is an entry of the Materials Project with the formula, the number of
sites and the space group of an ordered prototype. The prototype's guessed cell is relaxed and its
volume compared with that of DFT; ensembles predict from the guessed, the relaxed and DFT's cell.

    python benchmarks/potential.py --help
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring.stopwatch import ROOT, CommandLine, machine, say, settle, show, versions, write

if TYPE_CHECKING:
    from assay.models.potentials.potential import Potential
    from assay.sources.crystals import Crystals

DISPLACED, STRAINED = 0.08, 0.03
"""Å, deviation of each coordinate; deviation of each component of the strain."""
FMAX, STEPS = 0.05, 300
SYMPREC, CLOSE = 0.1, 0.03
"""Å; share of the volume within which a crystal has come back."""
DRAWN = 300_000
"""Prototypes among which known crystals are looked for."""
ENSEMBLES = {"formation-energy": "formation_energy", "band-gap": "band_gap"}
ATOMS = (1, 2, 4, 8, 16, 32, 64, 200)
"""Repeats of a cell of copper."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = CommandLine(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--few", type=int, default=24, help="crystals for slow contestants (default: 24)")
    parser.add_argument("--many", type=int, default=1000, help="crystals for quick ones (default: 1000)")
    parser.add_argument("--flat", type=int, default=0, help="also relax so many crystals, and show the memory")
    parser.add_argument("--known", type=int, default=0, help="relax so many known crystals, and nothing else")
    parser.add_argument("--models", nargs="+", default=["potential", "chgnet"], help="force fields for --known")
    parser.add_argument("--teacher", default="nequix:nequix-oam-1-pft", help="another potential to measure")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/potential.json", help="JSON file")
    options = parser.read(words, few=6, many=200)
    settle()
    if options.known:
        found = come_back(options.known, options.models)
        write({"machine": machine(), **found}, options.output.with_name("known.json"))
        return
    from assay.models.potentials import potential as potentials
    from assay.models.potentials.student import student

    every = potentials.load("potential")
    quick = {"student": student.alone(every, 0), "potential": every}
    slow = {"chgnet": potentials.load("chgnet")}
    try:
        slow[options.teacher] = potentials.load(options.teacher)
    except (ImportError, ValueError) as error:
        say(f"left out: {error}")
    crystals = displaced(options.many)
    report = {
        "evaluation": evaluations(quick, slow, crystals, options.few),
        "size": sizes(quick["student"]),
        "relaxation": relaxations(quick, crystals, options.few),
    }
    if options.flat:
        report["memory"] = memory(quick["student"], options.flat)
    write({"machine": machine(), "versions": versions("chgnet", "ase", "torch"), **report}, options.output)


def displaced(n: int, seed: int = 0) -> Crystals:
    """Ordered hypothetical crystals that CHGNet knows, strained and with displaced atoms."""
    from assay.models.potentials import potential
    from assay.sources import prototypes
    from assay.sources.crystals import wrap

    found = prototypes.generate(10 * n, seed)
    rows, _ = potential.known(potential.load("chgnet"), found)
    found = found.select(rows[:: max(1, len(rows) // n)][:n])
    random = np.random.default_rng(seed)
    strain = random.normal(scale=STRAINED, size=found.lattice.shape)
    lattice = found.lattice @ (np.eye(3) + (strain + strain.transpose(0, 2, 1)) / 2)
    shift = random.normal(scale=DISPLACED, size=found.frac.shape)
    frac = wrap(found.frac + np.einsum("si,sij->sj", shift, np.linalg.inv(lattice)[found.site_crystal]))
    return replace(found, lattice=lattice, frac=frac)


def evaluations(
    quick: dict[str, Potential], slow: dict[str, Potential], crystals: Crystals, few: int
) -> dict[str, Any]:
    """CPU milliseconds of an energy with its forces and stress."""
    found = {name: (timed(one.evaluate, crystals), len(crystals)) for name, one in quick.items()}
    found["student in plain torch"] = timed(eager(quick["student"]), crystals), len(crystals)
    found |= {name: (timed(one.evaluate, crystals[:few]), few) for name, one in slow.items()}
    each = {name: seconds / n * 1e3 for name, (seconds, n) in found.items()}
    lines = [
        [name, f"{ms:.3f}", f"{ms / each['student']:.1f}", f"{ms / each['potential']:.1f}"] for name, ms in each.items()
    ]
    atoms = np.mean(crystals.nsites)
    head = ["", "ms per crystal", "times student", "times potential"]
    show(f"Energy, forces and stress, {atoms:.1f} atoms on average", head, lines)
    return {"atoms": float(atoms), "ms": each}


def eager(student: Any) -> Any:
    """The network of a student as it is trained, without tables, some crystals at a time."""
    from assay.models.potentials.student.slopes import slopes

    def run(crystals: Crystals) -> None:
        for first in range(0, len(crystals), 64):
            slopes(student.networks[0], crystals[first : first + 64])

    return run


def sizes(student: Potential) -> dict[str, float]:
    """CPU microseconds per atom of cells of many sizes."""
    from ase.build import bulk, make_supercell

    from assay.sources.formats.convert import from_ase

    found = {}
    for n in ATOMS:
        atoms = make_supercell(bulk("Cu", cubic=False), np.diag([n, 1, 1]))
        count = max(1, 800 // n)
        many = from_ase([atoms] * count, [str(k) for k in range(count)])
        found[str(n)] = timed(student.evaluate, many) / (n * count) * 1e6
    show("Copper", ["atoms in the cell", "us per atom"], [[n, f"{us:.0f}"] for n, us in found.items()])
    return found


def relaxations(quick: dict[str, Potential], crystals: Crystals, few: int) -> dict[str, Any]:
    """CPU seconds of a relaxation."""
    runs = {name: (batched(one), len(crystals)) for name, one in quick.items()}
    runs["student, ASE's FIRE one by one"] = one_by_one("student", quick["student"]), few
    try:
        runs["student, torch-sim's FIRE, all at once"] = by_torchsim(quick["student"]), len(crystals)
    except ImportError as error:
        say(f"left out: {error}")
    runs["chgnet in batches"] = batched(None), few
    runs["StructOptimizer of chgnet"] = optimizer, few
    found = {}
    for name, (run, n) in runs.items():
        run(crystals[:1])
        began = time.process_time()
        steps, volume = run(crystals[:n])
        found[name] = {"cpu_s": (time.process_time() - began) / n, "crystals": n, "steps": steps, "volume": volume}
        say(f"{name}: {found[name]['cpu_s']:.4f} s per crystal")
    base = found["student"]
    lines = [
        [
            name,
            f"{one['cpu_s'] * 1e3:.1f}",
            f"{one['cpu_s'] / base['cpu_s']:.1f}",
            f"{np.isfinite(one['volume']).sum()} of {one['crystals']}",
            f"{np.nanmean(one['steps']):.0f}",
            f"{100 * np.nanmedian(abs(one['volume'] / base['volume'][: one['crystals']] - 1)):.2f}",
        ]
        for name, one in found.items()
    ]
    head = ["", "CPU ms per crystal", "times student", "arrived", "steps", "median difference in volume, %"]
    show("Relaxation", head, lines)
    return {name: {key: np.asarray(value).tolist() for key, value in one.items()} for name, one in found.items()}


def batched(potential: Potential | None) -> Any:
    """All at once; by CHGNet for None."""
    from assay.models.potentials import potential as potentials, relax

    chosen = potential or potentials.load("chgnet")

    def run(crystals: Crystals) -> tuple[Any, Any]:
        found = relax.relax(crystals, chosen, relax.Settings(fmax=FMAX, steps=STEPS))
        steps, volume = np.full(len(crystals), np.nan), np.full(len(crystals), np.nan)
        steps[found.index], volume[found.index] = found.steps, found.crystals.volume
        return steps, volume

    return run


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


def one_by_one(name: str, potential: Potential) -> Any:
    """FIRE of ASE on its filter for cells, one crystal after the other."""
    from functools import partial

    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    from assay.models.potentials.as_ase import PROPERTIES, measured
    from assay.sources.formats.convert import to_ase, to_calculator

    def calculator() -> Any:
        return to_calculator(partial(measured, potential), PROPERTIES, name, calculator)

    def run(crystals: Crystals) -> tuple[Any, Any]:
        ends = []
        for atoms in to_ase(crystals):
            atoms.calc = calculator()
            mover = FIRE(FrechetCellFilter(atoms), logfile=None)
            arrived = mover.run(fmax=FMAX, steps=STEPS)
            ends.append((mover.nsteps, atoms.get_volume() if arrived else np.nan))
        steps, volume = zip(*ends, strict=True)
        return np.array(steps, float), np.array(volume)

    return run


def by_torchsim(student: Potential) -> Any:
    """FIRE of torch-sim on its Frechet filter, all crystals at once; NaN where it gave up."""
    from unittest.mock import patch

    from assay.models.potentials import as_torchsim
    from assay.sources.formats.convert import from_ase

    with patch.object(as_torchsim.potentials, "load", lambda _: student):
        model = as_torchsim.torchsim_model()
    import torch_sim

    mover: dict[str, Any] = {"optimizer": getattr(torch_sim, "frechet_cell_fire", None)}  # 0.3
    if hasattr(torch_sim, "Optimizer"):
        mover = {"optimizer": torch_sim.Optimizer.fire, "init_kwargs": {"cell_filter": torch_sim.CellFilter.frechet}}
    reached = torch_sim.generate_force_convergence_fn(FMAX, include_cell_forces=True)
    asked: list[int] = []
    model.register_forward_hook(lambda _, states, __: asked.append(states[0].n_systems))

    def run(crystals: Crystals) -> tuple[Any, Any]:
        asked.clear()
        end = torch_sim.optimize(model.state(crystals), model, convergence_fn=reached, max_steps=STEPS, **mover)
        found = from_ase(end.to_atoms(), crystals.ids.tolist())
        arrived = reached(end, None).numpy()
        return np.full(len(crystals), sum(asked) / len(crystals)), np.where(arrived, found.volume, np.nan)

    return run


def memory(student: Potential, n: int) -> list[dict[str, float]]:
    """Peak memory of this process while chunks of 500 crystals are relaxed."""
    run, rows, crystals = batched(student), [], displaced(500)
    for done in range(0, n, 500):
        run(crystals)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"crystals": done + 500, "peak_mib": peak})
    shown = [rows[k] for k in sorted({0, len(rows) // 4, len(rows) // 2, len(rows) - 1})]
    show("Memory", ["crystals", "peak, MiB"], [[f"{r['crystals']:,}", f"{r['peak_mib']:.0f}"] for r in shown])
    return rows


def come_back(n: int, models: list[str]) -> dict[str, Any]:
    """Volumes and predictions of known crystals whose cells were guessed."""
    guessed, true, values = pairs(n)
    say(f"{len(guessed)} known crystals")
    volumes = {"as guessed": off(guessed.volume, true.volume, len(guessed))}
    predicted = {}
    for name in models:
        for symmetry in ("free", "keep"):
            index, end = relaxed(guessed, name, symmetry)
            volumes[f"{name}, symmetry {symmetry}"] = off(end.volume, true.volume[index], len(guessed))
            if symmetry == "free":
                predicted[name] = predictions(guessed, true, values, index, end)
    head = [
        "cells",
        "arrived",
        f"within {CLOSE:.0%} of DFT's volume, %",
        "median |difference|, %",
        "median difference, %",
    ]
    show("Volumes", head, [[name, *(f"{value:.4g}" for value in one.values())] for name, one in volumes.items()])
    for name, found in predicted.items():
        lines = [[what, *(f"{value:.4f}" for value in errors.values())] for what, errors in found.items()]
        show(f"MAE against DFT, {name}", ["", "guessed cell", "relaxed cell", "DFT's cell"], lines)
    return {"crystals": len(guessed), "volumes": volumes, "predictions": predicted}


def pairs(n: int) -> tuple[Crystals, Crystals, dict[str, Any]]:
    """Guessed cells of known crystals, their true cells, and known values by ensemble."""
    from assay.sources import datasets, prototypes
    from assay.sources.elements import reduced_formulas

    sets = {
        name: datasets.load(dataset)
        for name, dataset in zip(ENSEMBLES, ("mp-formation-energy", "mp-band-gap"), strict=True)
    }
    known = sets["formation-energy"]
    small = np.flatnonzero(known.crystals.is_ordered & (known.crystals.nsites <= 12))
    formulas = reduced_formulas(known.crystals.composition())
    place = defaultdict(list)
    for row in small:
        place[formulas[row], int(known.crystals.nsites[row])].append(int(row))
    made = prototypes.generate(DRAWN, 1)
    made = made.select(np.flatnonzero(made.is_ordered))
    groups: dict[int, int] = {}
    mine, theirs = [], []
    names = reduced_formulas(made.composition())
    for k in range(len(made)):
        rows = place.get((names[k], int(made.nsites[k])), [])
        group = space_group(made, k) if rows else 0
        for row in rows:
            if row not in groups:
                groups[row] = space_group(known.crystals, row)
            if group and groups[row] == group:
                mine.append(k)
                theirs.append(row)
                break
        if len(mine) == n:
            break
    true = known.crystals.select(theirs)
    values = {"formation-energy": known.target[theirs]}
    gaps = dict(zip(sets["band-gap"].crystals.ids.tolist(), sets["band-gap"].target.tolist(), strict=True))
    values["band-gap"] = np.array([gaps.get(name, np.nan) for name in true.ids.tolist()])
    return made.select(mine), true, values


def space_group(crystals: Crystals, row: int) -> int:
    """Number of the space group; 0 where none is found."""
    from assay.sources import symmetry

    sites = slice(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    found = symmetry.dataset(
        crystals.lattice[row].tolist(), crystals.frac[sites].tolist(), crystals.numbers[sites].tolist(), SYMPREC
    )
    return 0 if found is None else int(found.number)


def relaxed(crystals: Crystals, name: str, symmetry: Any) -> tuple[Any, Crystals]:
    """Rows that arrived, and where."""
    from assay.models.potentials import potential, relax

    found = relax.relax(crystals, potential.load(name), relax.Settings(symmetry=symmetry))
    return found.index, found.crystals


def off(volume: Any, true: Any, of: int) -> dict[str, float]:
    """How many arrived, the share of all that came back, and differences of those that arrived."""
    change = volume / true - 1
    close = (abs(change) <= CLOSE).sum() / of
    return {
        "arrived": len(change),
        "back": 100 * float(close),
        "median_absolute": 100 * float(np.median(abs(change))),
        "median": 100 * float(np.median(change)),
    }


def predictions(guessed: Crystals, true: Crystals, values: dict[str, Any], index: Any, ended: Crystals) -> Any:
    """Mean absolute errors of bundled ensembles from three cells of crystals that arrived."""
    from assay.models.ensemble import ensemble, zoo

    found = {}
    for name, target in ENSEMBLES.items():
        loaded = ensemble.Ensemble.load(zoo.find(name))
        truth = values[name][index]
        known = np.isfinite(truth)
        cells = {"guessed": guessed.select(index), "relaxed": ended, "true": true.select(index)}
        errors = {}
        for which, crystals in cells.items():
            mean = loaded.predict(crystals.without_columns())[0].values[target].mean
            errors[which] = float(abs(mean - truth)[known].mean())
        found[target] = errors
    return found


def timed(run: Any, crystals: Crystals) -> float:
    """CPU seconds of one call, the best of two, after one to warm up."""
    run(crystals[: min(32, len(crystals))])
    best = float("inf")
    for _ in range(2):
        began = time.process_time()
        run(crystals)
        best = min(best, time.process_time() - began)
    return best


if __name__ == "__main__":
    main()
