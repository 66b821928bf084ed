"""Labels: texts of symmetry and composition that two rows of one crystal share.

Enters: `Crystals`. Leaves: one row of `LABELS` per crystal, and the blocks that labels form. This
module does not compare geometry.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.sources.checks.importing import one_at_a_time
from assay.sources.crystals import Crystals
from assay.sources.identity.cells import COARSE, FINE, Cell, cells
from assay.sources.identity.clustering import clusters

LABELS = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"unit": "", "meaning": "id of the crystal"}),
        pa.field("formula", pa.string(), metadata={"unit": "", "meaning": "reduced formula, elements in order"}),
        pa.field("spacegroup", pa.int16(), metadata={"unit": "", "meaning": "number at 0.1 Å; 0: not found"}),
        pa.field("label", pa.string(), metadata={"unit": "", "meaning": "protostructure at 0.1 Å; empty: not found"}),
        pa.field("label_fine", pa.string(), metadata={"unit": "", "meaning": "the same at 0.01 Å"}),
    ]
)
"""One row per crystal."""


def labels(crystals: Crystals) -> pa.Table:
    """One row of `LABELS` per crystal, in order.

    For an ordered crystal, the label is pymatgen's protostructure label. In `AB_cF8_225_a_b:Cl-Na`
    stand the site ratio, the Pearson symbol, the space group, the Wyckoff letters and the
    occupants. Sites of one composition (to 0.01) count as one occupant, written `La0.92Sr0.08`. So
    the label holds the composition, whatever the size of the cell. Where the symmetry search at
    0.1 Å fails, the labels are empty and the space group is 0.
    """
    groups, coarse, fine = [], [], []
    for cell in cells(crystals):
        group, label = _label(cell, COARSE)
        groups.append(group)
        coarse.append(label)
        fine.append(_label(cell, FINE)[1] if label else "")
    columns = [crystals.ids.astype(object), crystals.formulas().astype(object), groups, coarse, fine]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, LABELS)]
    return pa.Table.from_arrays(arrays, schema=LABELS)


def blocks(labels: pa.Table) -> NDArray[np.int64]:
    """(n,) block of each row, numbered by the smallest row in it.

    Rows that share either label are in one block. Rows of one block may be the same crystal; rows
    of two blocks count as different. A row without a label is alone in its block.
    """
    pairs = []
    for name in ("label", "label_fine"):
        first: dict[str, int] = {}
        pairs += [(first.setdefault(text, row), row) for row, text in enumerate(labels[name].to_pylist()) if text]
    return clusters(len(labels), np.array(pairs, dtype=np.int64).reshape(-1, 2))


def _label(cell: Cell, symprec: float) -> tuple[int, str]:
    """Space group and label; 0 and empty where moyo fails or contradicts the composition."""
    with one_at_a_time():
        from pymatgen.analysis.prototypes import WYCKOFF_MULTIPLICITY_DICT  # type: ignore[attr-defined]  # no __all__

    dataset = cell.dataset(symprec)
    if dataset is None:
        return 0, ""
    group, letters = dataset.number, dataset.wyckoffs
    orbits: list[Counter[str]] = [Counter() for _ in cell.kinds]
    for site in set(dataset.orbits):
        orbits[cell.numbers[site] - 1][letters[site]] += 1
    multiplicity = WYCKOFF_MULTIPLICITY_DICT[str(group)]
    ratio = _reduced([cell.numbers.count(number) for number in range(1, len(cell.kinds) + 1)])
    if ratio != _reduced([sum(multiplicity[letter] * n for letter, n in orbit.items()) for orbit in orbits]):
        return 0, ""
    wyckoff = _canonical("_".join("".join(f"{n}{a}" for a, n in sorted(orbit.items())) for orbit in orbits), group)
    ratios = "".join(f"{letter}{n if n > 1 else ''}" for letter, n in zip(ascii_uppercase + ascii_lowercase, ratio))
    return group, f"{ratios}_{dataset.pearson_symbol}_{group}_{wyckoff}:{'-'.join(cell.kinds)}"


def _reduced(counts: Sequence[int]) -> list[int]:
    divisor = math.gcd(*counts)
    return [count // divisor for count in counts]


@lru_cache(maxsize=1 << 16)
def _canonical(wyckoffs: str, group: int) -> str:
    """The Wyckoff letters under the choice of origin and axes that pymatgen prefers."""
    with one_at_a_time():
        from pymatgen.analysis.prototypes import canonicalize_element_wyckoffs

    return str(canonicalize_element_wyckoffs(wyckoffs, group))
