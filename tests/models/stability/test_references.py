"""Formation energies from total energies, against those that came with the crystals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from assay.models.stability.references import formation_energies
from assay.sources import table

OTHER = {"O", "Br", "I", "Bi"}
"""Elements whose reference behind `e_form_raw` is another one, by 0.001 to 0.084 eV/atom."""


def test_they_are_those_of_wbm(data: Path) -> None:
    crystals, _ = table.from_table(table.read(data / "potentials" / "wbm_pbe_relaxed.parquet"), "wbm")
    rows = pq.read_table(data / "potentials" / "mp_element_references.parquet").to_pylist()
    references = {row["element"]: row["energy_per_atom"] for row in rows}
    found = formation_energies(crystals.composition(), crystals.columns["energy"] / crystals.nsites, references)
    same = np.array([OTHER.isdisjoint(elements.split("-")) for elements in crystals.elements().tolist()])
    assert same.sum() > 400
    assert found[same] == pytest.approx(crystals.columns["e_form_raw"][same], abs=1e-6)


def test_an_element_without_a_reference_gives_no_number() -> None:
    amounts = np.zeros((2, 119))
    amounts[0, [11, 17]], amounts[1, 11] = 1, 2
    found = formation_energies(amounts, np.array([-3.4, -1.0]), {"Na": -1.3})
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(0.3)
