"""CIFs with one token replaced, deleted or doubled, and an independent reading of their composition.

The independent reading takes the grammar from `gemmi.cif`, the operations from the file or from spglib's table, and
nothing from Assay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import gemmi
import numpy as np

from .settings import named, numbered, plain, setting, settings, spellings
from .settings_crystals import truth, vectors
from .settings_files import Symmetry, random_syntax, triplets, write

TOKEN = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"]\S*")
POOL = ("?", ".", "'", '"', ";", "0", "1", "-1", "0.5", "1/3", "1e400", "nan", "-0.25", "99999", "90", "120", "#", "_")
POOL += (
    "loop_",
    "data_x",
    "save_",
    "_cell_length_a",
    "_atom_site_fract_x",
    "_atom_site_occupancy",
    "Fe",
    "H",
    "D",
    "Xx",
)
POOL += (
    "'x,y,z'",
    "'-x,-y,-z'",
    "'x+1/2,y,z'",
    "x,y",
    "'P 1'",
    "'F d -3 m'",
    "'P 21/c'",
    "166",
    "0.25(3)",
    "\x00",
    "é",
)
KINDS = ("replaced", "deleted", "doubled")


@dataclass(frozen=True)
class Mutant:
    """A changed file, and how it was changed."""

    recipe: str
    text: str
    original: dict[str, float]


def originals(count: int, seed: int) -> list[tuple[str, dict[str, float]]]:
    """Files of random settings, each with its composition: by name, number and operations in turns."""
    rng = np.random.default_rng([seed, 4])
    found = []
    for number in range(count):
        crystal = truth(int(rng.integers(1, 531)), seed)
        one = crystal.setting
        known = [known for known in spellings(one) if known.origin == one.origin]
        name = known[rng.integers(len(known))].text
        beside: list[dict[str, Any]] = [
            {"operations": triplets(crystal)},
            {"operations": triplets(crystal), "name": name, "number": one.number},
            {"name": name, "number": one.number},
            {"hall": one.hall_symbol},
        ]
        text = write(crystal, Symmetry(**beside[number % 4]), random_syntax(rng, crystal.units))
        found.append((text, crystal.composition))
    return found


def mutants(count: int, seed: int) -> list[Mutant]:
    """`count` files, each with one token changed."""
    rng = np.random.default_rng([seed, 5])
    bases = originals(max(20, count // 25), seed)
    return [_mutant(*bases[number % len(bases)], rng) for number in range(count)]


def _mutant(text: str, composition: dict[str, float], rng: np.random.Generator) -> Mutant:
    tokens = list(TOKEN.finditer(text))
    # long lists of operations would take nearly all changes otherwise
    weights = np.array([0.2 if "," in token[0] else 1.0 for token in tokens])
    token = tokens[rng.choice(len(tokens), p=weights / weights.sum())]
    kind = str(rng.choice(KINDS, p=[0.7, 0.15, 0.15]))
    old, new = token[0], ""
    if kind == "replaced":
        new = str(rng.choice(POOL)) if rng.random() < 0.5 else tokens[rng.integers(len(tokens))][0]
    elif kind == "doubled":
        new = f"{old} {old}"
    line = text[: token.start()].count("\n") + 1
    return Mutant(
        f"line {line}: {old!r} {kind} by {new!r}", text[: token.start()] + new + text[token.end() :], composition
    )


# The independent reading.


def independent(text: str) -> dict[str, float] | None:
    """Composition of the cell by the grammar of gemmi and the operations of spglib; None where that says nothing."""
    try:
        block = _the_block(gemmi.cif.read_string(text.lstrip("\ufeff")))
        lattice = vectors(tuple(_number(_value(block, f"_cell_{name}")) for name in CELL))
        sites, operations = _sites(block), _operations(block, lattice)
    except (ValueError, KeyError, IndexError, RuntimeError, ZeroDivisionError, np.linalg.LinAlgError):
        return None
    amounts: dict[str, float] = {}
    for element, share, place in sites:
        amounts[element] = amounts.get(element, 0.0) + share * _multiplicity(place, operations, lattice)
    return amounts


CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def _the_block(document: Any) -> Any:
    with_sites = [block for block in document if any(_column(block, f"_atom_site_fract_{axis}") for axis in "xyz")]
    if len(with_sites) != 1:
        raise ValueError("not one crystal")
    return with_sites[0]


def _column(block: Any, name: str) -> list[str]:
    dotted = next(
        (name.replace(start + "_", start + ".", 1) for start in PREFIXES if name.startswith(start + "_")), name
    )
    return list(block.find_values(name)) or list(block.find_values(dotted))


PREFIXES = ("_cell", "_atom_site", "_space_group_symop", "_space_group")


def _value(block: Any, name: str) -> str:
    found = _column(block, name)
    return gemmi.cif.as_string(found[0]) if found and not gemmi.cif.is_null(found[0]) else ""


def _number(text: str) -> float:
    return float(Fraction(text)) if "/" in text else float(re.sub(r"\(\d+\)$", "", text))


def _sites(block: Any) -> list[tuple[str, float, Any]]:
    columns = {name: _column(block, f"_atom_site_{name}") for name in COLUMNS}
    symbols = columns["type_symbol"] or columns["label"]
    count = len(columns["fract_x"])
    if not count or any(column and len(column) != count for column in columns.values()):
        raise ValueError("columns of different lengths")
    sites = []
    for row in range(count):
        place = np.array([_number(gemmi.cif.as_string(columns[f"fract_{axis}"][row])) for axis in "xyz"])
        share = columns["occupancy"][row] if columns["occupancy"] else "1"
        letters = re.match(r"[A-Za-z]{1,2}", gemmi.cif.as_string(symbols[row]))
        element = gemmi.Element(letters[0] if letters else "").name
        occupancy = 1.0 if gemmi.cif.is_null(share) else _number(gemmi.cif.as_string(share))
        if element == "X" or not 0 <= occupancy <= 1 or not np.isfinite(place).all():
            raise ValueError("no atom")
        sites.append(("H" if element == "D" else element, occupancy, place))
    return sites


COLUMNS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")


def _operations(block: Any, lattice: Any) -> list[tuple[Any, Any]]:
    for name in ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz"):
        texts = _column(block, name)
        if texts:
            return [_operation(gemmi.cif.as_string(text)) for text in texts]
    hall = _value(block, "_space_group_name_Hall") or _value(block, "_symmetry_space_group_name_Hall")
    name = _value(block, "_space_group_name_H-M_alt") or _value(block, "_symmetry_space_group_name_H-M")
    number = _value(block, "_space_group_IT_number") or _value(block, "_symmetry_Int_Tables_number")
    halls = _by_hall()[plain(hall)] if hall else _by_name()[plain(name)] if name else numbered(int(number))
    known = {setting(hall).operations: hall for hall in halls if setting(hall).fits(lattice)}
    if len(known) != 1:
        raise ValueError("several settings")
    one = setting(next(iter(known.values())))
    return list(zip(one.rotations, one.shifts / 24))


def _operation(text: str) -> tuple[Any, Any]:
    operation = gemmi.Op(text)
    return np.array(operation.rot) / operation.DEN, np.array(operation.tran) / operation.DEN


@cache
def _by_hall() -> dict[str, frozenset[int]]:
    return {plain(one.hall_symbol): frozenset([one.hall]) for one in settings()}


@cache
def _by_name() -> dict[str, frozenset[int]]:
    return {plain(known.text): named(known) for one in settings() for known in spellings(one)}


def _multiplicity(place: Any, operations: list[tuple[Any, Any]], lattice: Any) -> int:
    images: list[Any] = []
    for rotation, shift in operations:
        image = rotation @ place + shift
        gaps = np.array([image - other for other in images]).reshape(-1, 3)
        if not np.any(np.linalg.norm((gaps - np.round(gaps)) @ lattice, axis=-1) < 0.05):
            images.append(image)
    return len(images)
