"""Crystals written as CIF: which facts about the symmetry, under which tags, in which syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .settings_crystals import GRID, Truth

TAGS = {
    "old": {
        "number": "_symmetry_Int_Tables_number",
        "name": "_symmetry_space_group_name_H-M",
        "hall": "_symmetry_space_group_name_Hall",
        "operation": "_symmetry_equiv_pos_as_xyz",
        "operation id": "_symmetry_equiv_pos_site_id",
    },
    "new": {
        "number": "_space_group_IT_number",
        "name": "_space_group_name_H-M_alt",
        "hall": "_space_group_name_Hall",
        "operation": "_space_group_symop_operation_xyz",
        "operation id": "_space_group_symop_id",
    },
    "dots": {
        "number": "_space_group.IT_number",
        "name": "_space_group.name_H-M_alt",
        "hall": "_space_group.name_Hall",
        "operation": "_space_group_symop.operation_xyz",
        "operation id": "_space_group_symop.id",
    },
}
"""Names of the same items in the core dictionary before 2003, after it, and in DDLm."""
WITH_DOT = ("_cell", "_atom_site", "_chemical_formula")
FAKE = """_publ_section_comment
;
 The text of a comment may hold anything:
data_fake
loop_
_atom_site_label
_atom_site_fract_x
X1 0.1
_cell_length_a 99
;"""


@dataclass(frozen=True)
class Symmetry:
    """What a file says of its symmetry; empty where it says nothing."""

    operations: Sequence[str] = ()
    name: str = ""
    hall: str = ""
    number: int = 0


@dataclass(frozen=True)
class Syntax:
    """How a file is written; the defaults are the plain form."""

    tags: str = "old"
    formula: bool = False
    units: int = 0
    capitals: str = ""
    quirks: frozenset[str] = field(default=frozenset())


QUIRKS = (
    "byte order mark",
    "CRLF",
    "text field",
    "comments",
    "atoms first",
    "uncertainties",
    "tabs",
    "one value a line",
    "no type symbol",
    "charges",
    "occupancy not said",
    "numbered operations",
    "extra columns",
    "fractions of operations last",
    "capitals",
    "small letters",
    "double quotes",
    "blank lines",
    "four digits",
    "three digits",
    "places outside the cell",
)


def random_syntax(rng: np.random.Generator, units: int) -> Syntax:
    """Tags and up to three quirks, drawn."""
    quirks = frozenset(rng.choice(QUIRKS, size=rng.integers(0, 4), replace=False).tolist())
    formula = bool(rng.random() < 0.5)
    return Syntax(
        tags=str(rng.choice(list(TAGS))),
        formula=formula,
        units=units if formula and rng.random() < 0.5 else 0,
        quirks=quirks,
    )


def triplets(truth: Truth, rng: np.random.Generator | None = None) -> list[str]:
    """The operations of a crystal as texts; with `rng` in one of the notations in use."""
    style = 0 if rng is None else int(rng.integers(4))
    texts = [triplet(r, t, style) for r, t in zip(truth.setting.rotations, truth.setting.shifts)]
    return texts if rng is None or rng.random() < 0.7 else [texts[i] for i in rng.permutation(len(texts))]


def triplet(rotation: np.ndarray, shift: np.ndarray, style: int = 0) -> str:
    """One operation: `-y+1/2,x-y,z`; other styles put the shift first, use capitals and spaces, or decimals."""
    parts = []
    for row, part in zip(rotation.tolist(), shift.tolist()):
        letters = "".join(("-" if f < 0 else "+") + letter for f, letter in zip(row, "xyz") if f).removeprefix("+")
        divisor = int(np.gcd(part, 24))
        fraction = f"{part // divisor}/{24 // divisor}" if style != 3 else f"{part / 24:.5f}".rstrip("0")
        if not part:
            parts.append(letters)
        elif style == 1:
            parts.append(fraction + ("" if letters.startswith("-") else "+") + letters)
        else:
            parts.append(f"{letters}+{fraction}")
    return ", ".join(parts).upper() if style == 2 else ",".join(parts)


def write(truth: Truth, symmetry: Symmetry, syntax: Syntax, cell: Sequence[float] = ()) -> str:
    """The text of a file; `cell` replaces the right cell in files that are to be wrong."""
    tags, quirks = TAGS[syntax.tags], syntax.quirks
    head = ["data_crystal"]
    if "text field" in quirks:
        head.append(FAKE)
    head += _cell(cell or truth.cell, uncertain="uncertainties" in quirks)
    head += _formula(truth, syntax)
    quote = _double if "double quotes" in quirks else _quoted
    for key, value in (("name", symmetry.name), ("hall", symmetry.hall)):
        if value:
            head.append(f"{tags[key]} {quote(value)}")
    if symmetry.number:
        head.append(f"{tags['number']} {symmetry.number}")
    loops = []
    if symmetry.operations:
        numbered = "numbered operations" in quirks
        columns = [tags["operation id"]] * numbered + [tags["operation"]]
        rows = [[str(i)] * numbered + [_quoted(text)] for i, text in enumerate(symmetry.operations, 1)]
        loops.append(_loop(columns, rows, quirks))
    loops.append(_loop(*_atoms(truth, quirks), quirks))
    lines = [head[0], *reversed(loops), *head[1:]] if "atoms first" in quirks else [*head, *loops]
    return _finished("\n".join(lines) + "\n", syntax)


def _cell(cell: Sequence[float], uncertain: bool) -> list[str]:
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    digits = (4, 4, 4, 3, 3, 3)
    texts = [f"{value:.{n}f}" for value, n in zip(cell, digits)]
    if uncertain:
        texts = [f"{text}(12)" if float(text) != 90 else "90" for text in texts]
    return [f"_cell_{name} {text}" for name, text in zip(names, texts)]


def _formula(truth: Truth, syntax: Syntax) -> list[str]:
    if not syntax.formula:
        return []
    units = syntax.units or truth.units
    # the formula is that of the right number of units: where `units` is wrong, the two contradict each other
    parts = [f"{name}{amount / truth.units:g}" for name, amount in sorted(truth.composition.items())]
    lines = [f"_chemical_formula_sum '{' '.join(parts)}'"]
    return [*lines, f"_cell_formula_units_Z {units}"] if syntax.units else lines


def _atoms(truth: Truth, quirks: frozenset[str]) -> tuple[list[str], list[list[str]]]:
    columns = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"]
    rows = []
    for site in truth.sites:
        symbol = site.element + {"O": "2-", "F": "-", "Cl": "1-", "S": "-2", "Be": "+2"}.get(site.element, "3+") * (
            "charges" in quirks
        )
        places = [_coordinate(part + outside * GRID, quirks) for part, outside in zip(site.place, _outside(quirks))]
        occupancy = "." if "occupancy not said" in quirks and site.occupancy == 1 else f"{site.occupancy:g}"
        rows.append([site.label, symbol, *places, occupancy])
    if "no type symbol" in quirks:
        columns, rows = columns[:1] + columns[2:], [row[:1] + row[2:] for row in rows]
    if "extra columns" in quirks:
        columns = ["symmetry_multiplicity", *columns, "U_iso_or_equiv", "calc_flag"]
        rows = [["?", *row, "0.0123(4)", "d"] for row in rows]
    return [f"_atom_site_{name}" for name in columns], rows


def _outside(quirks: frozenset[str]) -> tuple[int, int, int]:
    return (-1, 0, 1) if "places outside the cell" in quirks else (0, 0, 0)


def _coordinate(part: int, quirks: frozenset[str]) -> str:
    digits = 3 if "three digits" in quirks else 4 if "four digits" in quirks else 5
    text = f"{part / GRID:.{digits}f}"
    free = part % 3 == 0 and part % 1250
    return f"{text[:-1]}(3)" if "uncertainties" in quirks and free and digits == 5 else text


def _loop(columns: list[str], rows: list[list[str]], quirks: frozenset[str]) -> str:
    between = "\n" if "one value a line" in quirks else "\t" if "tabs" in quirks else " "
    return "\n".join(["loop_", *columns, *(between.join(row) for row in rows)])


def _quoted(text: str) -> str:
    return f"'{text}'" if "'" not in text else f'"{text}"'


def _double(text: str) -> str:
    return f'"{text}"' if '"' not in text else f"'{text}'"


def _finished(text: str, syntax: Syntax) -> str:
    quirks = syntax.quirks
    if syntax.tags == "dots":
        text = re.sub(rf"(?m)^({'|'.join(WITH_DOT)})_", r"\1.", text)
    for quirk, change in (("capitals", str.upper), ("small letters", str.lower)):
        if quirk in quirks:
            text = re.sub(r"(?m)^(_\S+|loop_|data_)", lambda found, change=change: change(found[0]), text)
    if "comments" in quirks:
        text = text.replace("loop_\n", "loop_ # data_ in a comment\n# _cell_length_a 3\n")
    if "blank lines" in quirks:
        text = text.replace("\nloop_", "\n\n\nloop_")
    if "CRLF" in quirks:
        text = text.replace("\n", "\r\n")
    return ("\ufeff" if "byte order mark" in quirks else "") + text
