"""A CIF with split positions is scored, and one that puts too much at one place is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import assay
from assay.sources.quarantine import Reason, Stage

if TYPE_CHECKING:
    from pathlib import Path

CIF = """\
data_{name}
_cell_length_a 3.866
_cell_length_b 3.866
_cell_length_c 23.24
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'I 4/m m m'
_symmetry_Int_Tables_number 139
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Tl1 Tl 0.031 0 0.2024 {share}
Ba1 Ba 0 0 0.4168 1
Cu1 Cu 0 0 0 1
O1 O 0 0.5 0 1
O2 O 0 0 0.1171 1
O3 O 0.088 0 0.2886 0.25
"""


def written(folder: Path, name: str, share: float) -> Path:
    path = folder / f"{name}.cif"
    path.write_text(CIF.format(name=name, share=share))
    return path


def test_a_cuprate_with_split_layers_is_scored(tmp_path: Path) -> None:
    crystals = assay.read(written(tmp_path, "split", 0.25))
    assert crystals.formulas().tolist() == ["Ba2CuTl2O6"]
    predicted = assay.predict(crystals, "tc-fast")
    assert not predicted.refused
    assert np.isfinite(predicted.table["tc_mean"].to_numpy()).all()


def test_a_campaign_ranks_it(tmp_path: Path) -> None:
    """Two CIFs, one of them with 1.6 atoms at a place: one row ranked, one in quarantine."""
    paths = [str(written(tmp_path, name, share)) for name, share in (("split", 0.25), ("crowded", 0.4))]
    results = assay.screen(
        {
            "name": "split",
            "sources": [{"kind": "files", "paths": paths}],
            "models": ["tc-fast"],
            "rank": {"property": "tc", "by": "mean"},
            "max_bad": 0.6,
            "output": str(tmp_path / "run"),
        }
    )
    assert [row["id"] for row in results.candidates(["id"]).to_pylist()] == ["file/split.cif"]
    assert results.summary.quarantine == {"atoms_too_close": 1}


def test_more_than_one_atom_at_a_place_is_refused_with_both_shares(tmp_path: Path) -> None:
    refused = assay.predict(written(tmp_path, "crowded", 0.4), "tc-fast").refused
    assert [(bad.reason, bad.stage) for bad in refused] == [(Reason.ATOMS_TOO_CLOSE, Stage.FEATURIZE)]
    assert "hold 0.4 and 0.4 atoms are 0.169 Å apart" in refused[0].message
    assert refused[0].message.endswith("here 1.6")


@pytest.mark.parametrize("cell", [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [0, 1, 0], [0, 0, 1]]])
def test_any_cell_of_it_is_scored_alike(tmp_path: Path, cell: list[list[int]]) -> None:
    [structure] = assay.to_pymatgen(assay.read(written(tmp_path, "split", 0.25)))
    pieces = [structure.make_supercell(cell, in_place=False), structure.get_primitive_structure(tolerance=1e-4)]
    found = assay.predict(pieces, "tc-fast").table["tc_mean"].to_numpy()
    np.testing.assert_allclose(found, found[0], rtol=1e-4)
