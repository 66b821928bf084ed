"""Cases for readers of CIF, and the judge: what was read against the crystal that was written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from assay.sources import files
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

from .settings import Setting, Spelling, in_group, named, numbered, plain, setting, spellings
from .settings_crystals import IMAGES, Truth, parameters, truth, vectors
from .settings_files import Symmetry, Syntax, random_syntax, triplets, write


class Expected(StrEnum):
    """What a reader may do with a file."""

    READ = "read"
    """The file has one meaning: a refusal is a defect."""
    EITHER = "read, or refuse, or choose and warn"
    """The file has several meanings: the right crystal, a refusal, or a choice that is told."""
    TELL = "refuse, or read right and warn"
    """The file contradicts itself."""
    FOLLOW = "refuse, or follow the operations and warn"
    """The listed operations are a group, and another one than the file names: no reader can know which is meant."""


class Verdict(StrEnum):
    """What a reader did."""

    RIGHT = "right"
    WARNED = "right, with a warning"
    REFUSED = "refused"
    WRONG = "wrong"
    WARNED_WRONG = "wrong, with a warning"


@dataclass(frozen=True)
class Case:
    """A file, the crystal that it means, and what a reader may do."""

    kind: str
    recipe: str
    truth: Truth
    text: str
    expected: Expected


@dataclass(frozen=True)
class Outcome:
    """A case and what became of it."""

    case: Case
    verdict: Verdict
    message: str

    @property
    def is_defect(self) -> bool:
        """Whether the reader did what it may not do."""
        if self.verdict is Verdict.WARNED_WRONG:
            return self.case.expected not in (Expected.FOLLOW, Expected.EITHER)
        silent = self.verdict is Verdict.RIGHT and self.case.expected in (Expected.TELL, Expected.FOLLOW)
        refused = self.verdict is Verdict.REFUSED and self.case.expected is Expected.READ
        return self.verdict is Verdict.WRONG or silent or refused


# Cases.


def named_cases(hall: int, seed: int, count: int) -> Iterator[Case]:
    """Files with a name alone or beside other facts, in `count` of its spellings."""
    one, rng = setting(hall), np.random.default_rng([hall, seed, 1])
    known = spellings(one)
    for index in rng.choice(len(known), size=min(count, len(known)), replace=False):
        spelling = known[index]
        beside = str(rng.choice(["nothing", "nothing", "number", "hall", "hall and number", "everything"]))
        yield _case(one, seed, rng, f"name, {beside}", spelling, beside)


def unnamed_cases(hall: int, seed: int) -> Iterator[Case]:
    """Files with operations only, a Hall symbol only, a number only, and a number beside a Hall symbol."""
    one, rng = setting(hall), np.random.default_rng([hall, seed, 2])
    for beside in ("operations", "hall", "number", "hall and number"):
        if beside != "number" or hall in numbered(one.number):
            yield _case(one, seed, rng, beside, None, beside)


def _case(one: Setting, seed: int, rng: np.random.Generator, kind: str, spelling: Spelling | None, beside: str) -> Case:
    crystal = truth(one.hall, seed)
    with_all = beside == "everything"
    symmetry = Symmetry(
        operations=triplets(crystal, rng) if with_all or beside == "operations" else (),
        name=spelling.text if spelling else "",
        hall=_hall_symbol(one, rng) if with_all or "hall" in beside else "",
        number=one.number if with_all or "number" in beside else 0,
    )
    syntax = random_syntax(rng, crystal.units)
    expected = Expected.READ if len(meanings(crystal, symmetry, spelling)) == 1 else Expected.EITHER
    said = f"{spelling.text!r} ({spelling.style})" if spelling else ""
    recipe = f"setting {one.hall} seed {seed}: {kind} {said} hall={symmetry.hall!r}"
    recipe += f", tags {syntax.tags}, {sorted(syntax.quirks)}"
    return Case(kind, recipe, crystal, write(crystal, symmetry, syntax), expected)


def _hall_symbol(one: Setting, rng: np.random.Generator) -> str:
    style = int(rng.integers(4))
    text = one.hall_symbol
    return {0: text, 1: text, 2: text.upper(), 3: text.lower()}[style]


def meanings(crystal: Truth, symmetry: Symmetry, spelling: Spelling | None) -> set[frozenset[bytes]]:
    """The different sets of operations that a file may mean, by its symbols and its cell."""
    if symmetry.operations or symmetry.hall:
        return {crystal.setting.operations}
    halls = named(spelling) if spelling else numbered(symmetry.number)
    if symmetry.number:
        halls &= in_group(symmetry.number)
    return {setting(hall).operations for hall in halls if setting(hall).fits(crystal.lattice)}


def contradictory_cases(hall: int, seed: int) -> Iterator[Case]:
    """Files in which one fact was made wrong; what no reader can notice is left out."""
    one, rng = setting(hall), np.random.default_rng([hall, seed, 3])
    crystal = truth(hall, seed)
    full = next(known for known in spellings(one) if known.origin == one.origin and known.symbol == plain(one.full))
    whole = Symmetry(triplets(crystal), full.text, one.hall_symbol, one.number)
    usual = Syntax(tags=str(rng.choice(["old", "new"])), formula=True, units=crystal.units)

    def case(kind: str, symmetry: Symmetry, syntax: Syntax = usual, cell: tuple[float, ...] = ()) -> Case:
        recipe = f"setting {hall} seed {seed}: {kind}; {_brief(symmetry)}"
        listed = whole.operations != symmetry.operations and is_group(symmetry.operations)
        expected = Expected.FOLLOW if listed else Expected.TELL
        return Case(kind, recipe, crystal, write(crystal, symmetry, syntax, cell), expected)

    other = setting(int(rng.integers(1, 531)))
    if other.number != one.number:
        yield case("number of another group", replace(whole, number=other.number))
        yield case("number of another group, no operations", replace(whole, number=other.number, operations=()))
        yield case("Hall symbol of another group, no operations", replace(whole, hall=other.hall_symbol, operations=()))
    sisters = [h for h in in_group(one.number) if setting(h).operations != one.operations]
    if sisters:
        sister = setting(int(rng.choice(sorted(sisters))))
        yield case("Hall symbol of another setting", replace(whole, hall=sister.hall_symbol))
        if sister.operations not in meanings(crystal, Symmetry(name=full.text), full):
            yield case(
                "Hall symbol of another setting, no operations", replace(whole, hall=sister.hall_symbol, operations=())
            )
        yield case("operations of another setting", replace(whole, operations=triplets(truth(sister.hall, seed))))
    if len(one.rotations) > 1:
        garbled = _garbled(whole.operations, rng)
        yield case("a garbled operation", replace(whole, operations=garbled))
        yield case("a missing operation", replace(whole, operations=_without_one(whole.operations, rng)))
    cell = _strained(crystal, rng)
    if not one.fits(vectors(cell)):
        yield case(
            "a cell that the operations do not keep",
            Symmetry(operations=whole.operations),
            replace(usual, formula=False, units=0),
            cell,
        )
        yield case("a cell that the group does not keep", replace(whole, operations=()), usual, cell)
    factor = int(rng.choice([2, 3, 4]))
    yield case(f"Z times {factor}", whole, replace(usual, units=crystal.units * factor))


def is_group(operations: Sequence[str]) -> bool:
    """Whether the operations, in the plain notation, are closed under multiplication."""
    if not operations:
        return False
    rotations, shifts = (np.array(part) for part in zip(*map(matrix, operations)))
    turned = np.einsum("mij,njk->mnik", rotations, rotations).reshape(-1, 9)
    moved = (np.einsum("mij,nj->mni", rotations, shifts) + shifts[:, None]).reshape(-1, 3) % 24
    products = np.unique(np.concatenate([turned, moved], axis=1), axis=0)
    own = np.unique(np.concatenate([rotations.reshape(-1, 9), shifts], axis=1), axis=0)
    return np.array_equal(products, own)


def matrix(text: str) -> tuple[Any, Any]:
    """Rotation, and shift in 1/24, of one operation in any of the notations written here."""
    rotation, shift = np.zeros((3, 3), dtype=np.int64), np.zeros(3, dtype=np.int64)
    for row, part in enumerate(text.lower().replace(" ", "").split(",")):
        for sign, term in re.findall(r"([+-]?)([^+-]+)", part):
            factor = -1 if sign == "-" else 1
            if term in "xyz":
                rotation[row, "xyz".index(term)] += factor
            else:
                shift[row] += factor * round(24 * float(Fraction(term)))
    return rotation, shift % 24


def _brief(symmetry: Symmetry) -> str:
    return (
        f"name {symmetry.name!r} hall {symmetry.hall!r} number {symmetry.number} operations {len(symmetry.operations)}"
    )


def _garbled(operations: Sequence[str], rng: np.random.Generator) -> list[str]:
    place = int(rng.integers(1, len(operations)))
    old = operations[place]
    parts = old.split(",")
    part = int(rng.integers(3))
    parts[part] = parts[part][1:] if parts[part].startswith("-") else "-" + parts[part]
    new = ",".join(parts)
    if rng.random() < 0.5 or new in operations:
        parts = old.split(",")
        parts[part] = parts[part] + "+1/3"
        new = ",".join(parts)
    return [new if i == place else text for i, text in enumerate(operations)]


def _without_one(operations: Sequence[str], rng: np.random.Generator) -> list[str]:
    place = int(rng.integers(1, len(operations)))
    return [text for i, text in enumerate(operations) if i != place]


def _strained(crystal: Truth, rng: np.random.Generator) -> tuple[float, ...]:
    cell = list(crystal.cell)
    part = int(rng.integers(6))
    cell[part] += 0.06 * cell[part]
    return tuple(cell)


# The judge.


def judge(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Write the files, read them with Assay, and compare."""
    for number, case in enumerate(cases):
        (folder / f"{number}.cif").write_bytes(case.text.encode())
    crystals, refused = files.read_many([folder / f"{number}.cif" for number in range(len(cases))])
    rows = {str(id): row for row, id in enumerate(crystals.ids)}
    reasons = {record.id: f"{record.reason.value}: {record.message}" for record in refused}
    outcomes = []
    for number, case in enumerate(cases):
        id = f"file/{number}.cif"
        if id in rows:
            outcomes.append(Outcome(case, *_verdict(case.truth, crystals, rows[id])))
        else:
            outcomes.append(Outcome(case, Verdict.REFUSED, reasons[id]))
    assert len(rows) + len(reasons) == len(cases), "a file gave several rows"
    return outcomes


def _verdict(right: Truth, crystals: Crystals, row: int) -> tuple[Verdict, str]:
    warnings = str(crystals.columns["warnings"][row]) if "warnings" in crystals.columns else ""
    problem = difference(right, *arrays(crystals, row))
    if problem:
        return (Verdict.WARNED_WRONG if warnings else Verdict.WRONG), f"{problem}; warnings: {warnings!r}"
    return (Verdict.WARNED if warnings else Verdict.RIGHT), warnings


def arrays(crystals: Crystals, row: int) -> tuple[Any, Any, Any, Any]:
    """Cell, and element, share and position of each species of each site."""
    sites = range(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    own = [(site, item) for site in sites for item in range(crystals.species_ptr[site], crystals.species_ptr[site + 1])]
    places, items = np.array(own).T
    symbols = tuple(SYMBOLS[z] for z in crystals.numbers[items].tolist())
    return crystals.lattice[row], symbols, crystals.occupancy[items], crystals.frac[places]


def difference(right: Truth, lattice: Any, elements: Sequence[str], occupancy: Any, frac: Any) -> str:
    """How a reading differs from the truth in composition, sites, volume and distances; empty where it does not."""
    amounts, wanted = _amounts(elements, occupancy), _amounts(right.elements, right.occupancy)
    if {k: round(v, 2) for k, v in amounts.items()} != {k: round(v, 2) for k, v in wanted.items()}:
        return f"composition {amounts}, not {wanted}"
    if len(elements) != len(right.elements):
        return f"{len(elements)} occupied places, not {len(right.elements)}"
    volume = abs(np.linalg.det(lattice))
    if abs(volume - right.volume) > 1e-3 * right.volume:
        return f"volume {volume:.3f}, not {right.volume:.3f}"
    if _same_places(right, lattice, elements, occupancy, frac):
        return ""
    got, truth_ = distances(lattice, frac), distances(right.lattice, right.frac)
    if len(got) == len(truth_) and np.abs(got - truth_).max() < 0.01:
        return ""
    return f"distances {np.unique(got.round(2))[:6]}, not {np.unique(truth_.round(2))[:6]}"


def _amounts(elements: Iterable[str], occupancy: Any) -> dict[str, float]:
    amounts: Counter[str] = Counter()
    for element, share in zip(elements, occupancy.tolist()):
        amounts[element] += share
    return dict(sorted(amounts.items()))


def _same_places(right: Truth, lattice: Any, elements: Sequence[str], occupancy: Any, frac: Any) -> bool:
    """Whether the same atoms stand at the same coordinates in the same cell."""
    if np.abs(parameters(lattice) - np.array(right.cell)).max() > 0.01:
        return False
    gaps = (frac[:, None] - right.frac[None] + 0.5) % 1 - 0.5
    near = np.linalg.norm(gaps @ right.lattice, axis=-1) < 0.02
    alike = np.array(elements)[:, None] == np.array(right.elements)[None]
    alike &= np.abs(occupancy[:, None] - right.occupancy[None]) < 1e-3
    found = near & alike
    return bool(np.all(found.sum(axis=0) == 1) and np.all(found.sum(axis=1) == 1))


def distances(lattice: Any, frac: Any) -> Any:
    """All distances between two places in the cell up to 4 Å, sorted."""
    gaps = (frac[:, None] - frac[None] + 0.5) % 1 - 0.5
    lengths = np.sort(np.linalg.norm((gaps[:, :, None] + IMAGES) @ lattice, axis=-1), axis=None)
    return lengths[lengths < 3.5]
