"""Trajectories of ASE: each frame is a crystal or a record."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from assay.sources import files
from assay.sources.quarantine import Reason


def frames() -> list[Atoms]:
    first, second = bulk("NaCl", "rocksalt", a=5.64), bulk("Nb", cubic=True)
    first.calc = SinglePointCalculator(first, energy=-3.5)
    second.info["tag"] = "metal"
    return [first, second]


def test_every_frame_is_a_crystal_with_its_numbers_and_texts(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.traj", frames())
    (tmp_path / "b.traj.gz").write_bytes(gzip.compress((tmp_path / "a.traj").read_bytes()))
    crystals, refused = files.read(tmp_path)
    assert not refused
    assert crystals.ids.tolist() == [
        f"file/{name}{number}" for name in ("a.traj", "b.traj.gz") for number in ("", "#2")
    ]
    assert crystals.formulas().tolist() == ["NaCl", "Nb"] * 2
    assert crystals.volume.tolist() == pytest.approx([5.64**3 / 4, 3.3**3] * 2)
    np.testing.assert_array_equal(crystals.columns["energy"], [-3.5, np.nan] * 2)
    assert crystals.columns["tag"].tolist() == ["", "metal"] * 2


def test_a_frame_that_is_no_crystal_costs_itself(tmp_path: Path) -> None:
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    shared = bulk("Nb", cubic=True)
    shared.info["occupancy"] = {"0": {"Nb": 0.5, "Ti": 0.5}}  # ASE drops the array that says on which sites
    shared.arrays["spacegroup_kinds"] = np.zeros(2, int)
    ase.io.write(tmp_path / "a.traj", [frames()[0], slab, shared, frames()[1]])
    crystals, refused = files.read(tmp_path / "a.traj")
    assert crystals.ids.tolist() == ["file/a.traj", "file/a.traj#4"]
    assert [(row.id, row.reason) for row in refused] == [
        ("file/a.traj#2", Reason.NOT_PERIODIC),
        ("file/a.traj#3", Reason.MALFORMED),
    ]


@pytest.mark.parametrize("ending", ["traj", "traj.gz"])
def test_a_torn_trajectory_is_told(tmp_path: Path, ending: str) -> None:
    ase.io.write(tmp_path / "whole.traj", frames())
    whole = (tmp_path / "whole.traj").read_bytes()
    for length in range(0, len(whole), 97):
        torn = whole[:length]
        (tmp_path / f"torn.{ending}").write_bytes(gzip.compress(torn) if ending.endswith("gz") else torn)
        crystals, refused = files.read(tmp_path / f"torn.{ending}")
        found = crystals.formulas().tolist()
        assert found == ["NaCl", "Nb"][: len(found)]
        assert bool(refused) == (len(found) < 2), length  # the end of the file is padding
        assert all(row.reason is Reason.UNREADABLE for row in refused)


def test_an_empty_trajectory_and_another_file_of_that_name_are_told(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "none.traj", [])
    (tmp_path / "other.traj").write_text("hello")
    _, refused = files.read(tmp_path)
    assert [(row.id, row.reason) for row in refused] == [
        ("file/none.traj", Reason.UNREADABLE),
        ("file/other.traj", Reason.UNREADABLE),
    ]
