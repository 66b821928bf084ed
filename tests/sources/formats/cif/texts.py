"""CIF texts for tests, built from parts, and the reading of a text as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.sources.assemble import Assembler
from assay.sources.elements import SYMBOLS
from assay.sources.formats.cif.read import add_cif
from assay.sources.quarantine import Reason

COLUMNS = "label type_symbol fract_x fract_y fract_z occupancy"


@dataclass(frozen=True)
class Read:
    """One crystal of a text."""

    amounts: dict[str, float]
    sites: int
    volume: float
    shortest: float
    warnings: str
    columns: dict[str, object]


def read(text: str) -> tuple[list[Read], list[tuple[Reason, str]]]:
    """The crystals of a text, and reason with message of each refused block."""
    assembler = Assembler()
    add_cif(assembler, text, "x.cif", "x.cif")
    crystals, refused = assembler.finish()
    found = []
    for row, composition in enumerate(crystals.composition()):
        frac = crystals.frac[crystals.site_ptr[row] : crystals.site_ptr[row + 1]]
        amounts = {SYMBOLS[z]: round(float(composition[z]), 4) for z in np.flatnonzero(composition)}
        columns = {name: column[row] for name, column in crystals.columns.items()}
        shortest = _shortest(crystals.lattice[row], frac)
        warnings = str(columns.pop("warnings", ""))
        found.append(Read(amounts, len(frac), float(crystals.volume[row]), shortest, warnings, columns))
    return found, [(record.reason, record.message) for record in refused]


def one(text: str) -> Read:
    """The crystal of a text that holds one and no refused block."""
    found, refused = read(text)
    assert not refused, refused
    assert len(found) == 1
    return found[0]


def refusal(text: str) -> tuple[Reason, str]:
    """Reason and message of a text with one block that is refused."""
    found, refused = read(text)
    assert not found, found
    assert len(refused) == 1
    return refused[0]


def _shortest(lattice: np.ndarray, frac: np.ndarray) -> float:
    images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
    distances = np.linalg.norm((frac[:, None, None] - frac[None, :, None] + images) @ lattice, axis=-1)
    return float(distances[distances > 1e-6].min())


def cell(a: float, b: float = 0, c: float = 0, alpha: float = 90, beta: float = 90, gamma: float = 90) -> str:
    """The six items of a cell; `b` and `c` are `a` unless given."""
    lengths = zip("abc", (a, b or a, c or a))
    angles = zip(("alpha", "beta", "gamma"), (alpha, beta, gamma))
    lines = [f"_cell_length_{axis} {length}" for axis, length in lengths]
    return "\n".join([*lines, *(f"_cell_angle_{name} {angle}" for name, angle in angles), ""])


def operations(*texts: str, tag: str = "_symmetry_equiv_pos_as_xyz") -> str:
    """A list of operations, the identity alone unless given."""
    return "\n".join(["loop_", tag, *(f"'{text}'" for text in texts or ("x,y,z",)), ""])


def sites(*rows: str, columns: str = COLUMNS) -> str:
    """The list of sites."""
    return "\n".join(["loop_", *(f"_atom_site_{name}" for name in columns.split()), *rows, ""])


def block(*parts: str, name: str = "test") -> str:
    """A data block of these parts."""
    return f"data_{name}\n" + "".join(part if part.endswith("\n") else part + "\n" for part in parts)


def hm(symbol: str) -> str:
    """The Hermann-Mauguin symbol."""
    return f"_symmetry_space_group_name_H-M '{symbol}'\n"


ROCK_SALT: Sequence[str] = ("Na1 Na 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1")
"""The sites of sodium chloride, for F m -3 m."""
