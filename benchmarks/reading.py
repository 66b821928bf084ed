"""Reading CIFs: is it right, beside spglib's table and three other programs, and how fast is it?

Enters: generated files in all 530 settings of the space groups, files with one token changed, CIFs
of installed packages and of folders, and crystals of the data packs. Leaves: one table on the
terminal and one JSON file. One thread, process CPU time, contestants in turns.

    python benchmarks/reading.py --help
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import site
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import Rates, arguments, machine, race, settle, show, versions, write

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

ROOT = Path(__file__).resolve().parents[1]
PACKS = {"materials project": "mp/mp_labelled_le40", "3dsc": "3dsc_mp/3dsc_mp"}
SHOWN = 40
"""Defects and disagreements of each kind in the JSON file, at most."""
SUFFIXES = (".cif", ".mcif")


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found: dict[str, Any] = {
            "settings": settings(work / "settings", options.seeds, options.names),
            "mutations": mutations(work / "mutations", options.mutations),
            "files at hand": at_hand([*map(Path, site.getsitepackages()), *options.cifs]),
            "files written by others": written_by_others(work / "written", options.data, options.crystals // 4),
            "speed": speed(work / "speed", options.data, options.crystals, options.repeat),
        }
    show("reading", ["question", "answer"], [[name, line] for name in found for line in _lines(found[name])])
    peers = versions("ase", "gemmi", "pymatgen", "spglib")
    write({"machine": machine(), "versions": peers, **found}, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "reading.json")
    parser.add_argument("--seeds", type=int, default=2, help="crystals of each setting (default: 2)")
    parser.add_argument("--names", type=int, default=8, help="names in which each is written (default: 8)")
    parser.add_argument("--mutations", type=int, default=5000, help="files with one token changed (default: 5000)")
    parser.add_argument("--crystals", type=int, default=200, help="crystals of each pack, timed (default: 200)")
    parser.add_argument("--cifs", type=Path, nargs="*", default=[], help="more folders with CIFs")
    return parser.read(words, seeds=1, names=1, mutations=300, crystals=60, repeat=1)


# What is measured.


def settings(folder: Path, seeds: int, names: int) -> dict[str, Any]:
    """Random crystals in every setting, written in many ways: counts by what a reader may do."""
    from tests.sources.formats import settings_judge as judge

    counts: dict[str, Counter[str]] = {kind.value: Counter() for kind in judge.Expected}
    defects = []
    for seed in range(seeds):
        cases = [case for hall in range(1, 531) for case in judge.unnamed_cases(hall, seed)]
        cases += [case for hall in range(1, 531) for case in judge.named_cases(hall, seed, names)]
        cases += [case for hall in range(1, 531) for case in judge.contradictory_cases(hall, seed)]
        for outcome in judge.judge(cases, _made(folder / str(seed))):
            counts[outcome.case.expected.value][outcome.verdict.value] += 1
            if outcome.is_defect:
                defects.append(f"{outcome.verdict.value}: {outcome.case.recipe}: {outcome.message}")
    report: dict[str, Any] = {name: dict(sorted(own.items())) for name, own in counts.items()}
    return {**report, "defects": len(defects), "first defects": defects[:SHOWN]}


def mutations(folder: Path, count: int) -> dict[str, Any]:
    """Files with one token changed: what became of them, and the slowest."""
    from tests.sources.formats import cif_mutations, mutation_judge

    readings = mutation_judge.judge_mutants(cif_mutations.mutants(count, 0), _made(folder))
    bad = (mutation_judge.Fate.RAISED, mutation_judge.Fate.DIFFERENT, mutation_judge.Fate.UNKNOWN)
    defects = [f"{one.fate}: {one.mutant.recipe}: {one.message}" for one in readings if one.fate in bad]
    counts = Counter(one.fate.value for one in readings)
    slowest = max(one.seconds for one in readings)
    return {**dict(sorted(counts.items())), "slowest_s": slowest, "defects": len(defects), "first": defects[:SHOWN]}


def at_hand(folders: list[Path]) -> dict[str, Any]:
    """CIFs of packages and folders: Assay beside gemmi, pymatgen and ASE."""
    return _compared(_files(folders))


def _files(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    """Each file with a different content once, with its path below the folder."""
    known = set()
    for folder in folders:
        for path in sorted(item for item in folder.rglob("*") if item.suffix.lower() in SUFFIXES and item.is_file()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest not in known:
                known.add(digest)
                yield str(path.relative_to(folder)), path


def _compared(paths: Iterator[tuple[str, Path]]) -> dict[str, Any]:
    from tests.sources.formats.cif_peers import by_assay, by_others, majority, voices

    counts: Counter[str] = Counter()
    notes: dict[str, list[str]] = {"alone": [], "refusals": [], "refusals against a majority": []}
    for name, path in paths:
        counts["files"] += 1
        own, refusals = by_assay(path)
        others = by_others(path)
        for one, said in own:
            agreeing = voices(one, others)
            kind = f"read, {len(agreeing)} of 3 agree" + (", warned" if said else "")
            counts[kind] += 1
            if not agreeing:
                heard = "; ".join(f"{who} {item}" for who, items in others.items() for item in items[:1])
                notes["alone"].append(f"{name}: {one}; warnings {said!r}; {heard}")
        lost = [one for one in majority(others) if not any(one.agrees(mine) for mine, _ in own)]
        for refusal in refusals:
            counts["refused"] += 1
            kind = "refusals against a majority" if lost else "refusals"
            notes[kind].append(f"{name}: {refusal}" + (f"; others {lost[0]}" if lost else ""))
    return {**dict(sorted(counts.items())), **{kind: lines for kind, lines in notes.items() if lines}}


def written_by_others(folder: Path, data: Path, count: int) -> dict[str, Any]:
    """Crystals of the packs as other programs write them: how many are read as the same."""
    from tests.sources.formats.cif_peers import by_assay, reading

    report = {}
    for pack, name in PACKS.items():
        batch = _spread(_pack(data, name), count)
        for writer, paths in _written(batch, _made(folder / pack)).items():
            same = refused = warned = 0
            for path, structure in paths:
                pairs = [(spot, kind, share) for spot in structure for kind, share in spot.species.items()]
                atoms = [(kind.symbol, share) for _, kind, share in pairs]
                right = reading(structure.lattice.matrix, atoms, [spot.frac_coords for spot, _, _ in pairs])
                own, refusals = by_assay(path)
                refused += bool(refusals)
                warned += any(said for _, said in own)
                same += any(one.agrees(right) for one, _ in own)
            counts = {"files": len(paths), "same": same, "refused": refused, "warned": warned}
            report[f"{pack}, {writer}"] = counts | {"other": len(paths) - same - refused}
    return report


def _written(batch: Crystals, folder: Path) -> dict[str, list[tuple[Path, Any]]]:
    """Files of each writer beside the structure written; ASE gets the ordered ones only."""
    import ase.io
    import gemmi
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifWriter
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    from assay.sources.formats.convert import to_pymatgen

    written: dict[str, list[tuple[Path, Any]]] = {}
    for number, structure in enumerate(to_pymatgen(batch)):
        plain, refined = str(CifWriter(structure)), SpacegroupAnalyzer(structure).get_refined_structure()
        texts = {
            "pymatgen P 1": (plain, structure),
            "pymatgen symprec": (str(CifWriter(structure, symprec=0.01)), refined),
            "pymatgen symprec, cell as it is": (_unrefined(structure), structure),
        }
        for writer, (text, right) in texts.items():
            path = folder / f"{writer} {number}.cif"
            path.write_text(text)
            written.setdefault(writer, []).append((path, right))
        path = folder / f"gemmi {number}.cif"
        small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(plain)[0])
        path.write_text(small.make_cif_block().as_string())
        written.setdefault("gemmi", []).append((path, structure))
        if structure.is_ordered:
            path = folder / f"ase {number}.cif"
            ase.io.write(path, AseAtomsAdaptor.get_atoms(structure))
            written.setdefault("ase", []).append((path, structure))
    return written


def _unrefined(structure: Any) -> str:
    """Operations found within a tolerance, written for the cell as it is."""
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(structure, symprec=0.01, refine_struct=False))


def speed(folder: Path, data: Path, count: int, repeat: int) -> dict[str, Any]:
    """CPU time per file: Assay, pymatgen and gemmi, on files that pymatgen wrote."""
    import gemmi
    from pymatgen.core import Structure

    from assay.sources.files import read_many

    report: dict[str, Any] = {}
    for pack, name in PACKS.items():
        written = _written(_spread(_pack(data, name), count), _made(folder / pack))
        for writer in ("pymatgen P 1", "pymatgen symprec"):
            paths = [path for path, _ in written[writer]]
            rates: Rates = race(
                {
                    "assay": lambda paths=paths: read_many(paths),
                    "pymatgen": lambda paths=paths: [Structure.from_file(path) for path in paths],
                    "gemmi, sites only": lambda paths=paths: [gemmi.read_small_structure(str(p)) for p in paths],
                },
                len(paths),
                repeat,
            )
            assay, pymatgen = (rates[who]["crystals_per_s"] for who in ("assay", "pymatgen"))
            report[f"{pack}, {writer}"] = {
                "files": len(paths),
                "per_minute": {who: 60 * rate["crystals_per_s"] for who, rate in rates.items()},
                "times_pymatgen": assay / pymatgen,
            }
    return report


# Crystals and tables.


def _pack(data: Path, name: str) -> Crystals:
    from assay.sources import table

    return table.from_table(table.read(data / f"{name}.parquet"), name)[0]


def _spread(batch: Crystals, count: int) -> Crystals:
    import numpy as np

    return batch.select(np.linspace(0, len(batch) - 1, min(count, len(batch))).astype(int))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _lines(found: dict[str, Any]) -> list[str]:
    """Counts, one line each; lists of defects stand in the JSON file."""
    return [f"{name}: {_short(value)}" for name, value in found.items() if not isinstance(value, list)]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(own)}" for name, own in value.items())
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    main(sys.argv[1:])
