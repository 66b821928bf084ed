"""mCIF: magnetic operations, centring and moments."""

from __future__ import annotations

import json

import pytest

from assay.sources.quarantine import Reason
from tests.sources.formats.cif.texts import block, cell, one, refusal, sites

COLUMNS = "label type_symbol fract_x fract_y fract_z"


def magnetic(*texts: str, kind: str = "operation") -> str:
    tag = f"_space_group_symop_magn_{kind}"
    return "\n".join(["loop_", f"{tag}.id", f"{tag}.xyz", *(f"{k} {text}" for k, text in enumerate(texts, 1)), ""])


def moments(*rows: str) -> str:
    names = ("label", "crystalaxis_x", "crystalaxis_y", "crystalaxis_z")
    return "\n".join(["loop_", *(f"_atom_site_moment.{name}" for name in names), *rows, ""])


ATOMS = sites("Fe1 Fe 0 0 0", "O1 O .5 .5 .25", columns=COLUMNS)


def test_centring_and_operations_are_multiplied_and_moments_turn_with_them() -> None:
    group = magnetic("x,y,z,+1", "-x,-y,z,+1") + magnetic("x,y,z,+1", "x,y,z+1/2,-1", kind="centering")
    found = one(block(cell(4.2, 4.2, 8.4), group, ATOMS, moments("Fe1 0 0 3.5(1)")))
    assert (found.amounts, found.sites) == ({"Fe": 2.0, "O": 2.0}, 4)
    assert json.loads(str(found.columns["magnetic_moments"])) == [[0, 0, 3.5], [0, 0, -3.5], [0, 0, 0], [0, 0, 0]]


def test_moments_are_axial_vectors_on_oblique_axes() -> None:
    group = magnetic("x,y,z,+1", "-x,-y,-z,+1")  # inversion leaves a moment as it is
    text = block(cell(4, 5, 6, 90, 90, 120), group, sites("Fe1 Fe .1 .2 .3", columns=COLUMNS), moments("Fe1 1 1 0"))
    turned = json.loads(str(one(text).columns["magnetic_moments"]))
    assert turned[0] == turned[1]
    assert sum(part**2 for part in turned[0]) == pytest.approx(1.0, abs=2e-3)  # two unit vectors at 120 degrees


def test_magnetic_operations_must_be_a_group_with_signs() -> None:
    bad = block(cell(4.2, 4.2, 8.4), magnetic("x,y,z,+1", "-y,x,z,+1"), ATOMS)
    assert refusal(bad)[0] is Reason.MALFORMED
    assert "must end in +1 or -1" in refusal(block(cell(4.2), magnetic("x,y,z"), ATOMS))[1]


def test_a_magnetic_group_by_name_only_is_refused() -> None:
    reason, message = refusal(block(cell(4.2), "_space_group_magn.number_BNS 14.75", ATOMS))
    assert reason is Reason.UNSUPPORTED
    assert "list of operations" in message


def test_magnetic_centring_without_operations_is_refused() -> None:
    text = block(cell(4.2), magnetic("x,y,z,+1", "x,y,z+1/2,-1", kind="centering"), ATOMS)
    assert "needs the list of magnetic operations" in refusal(text)[1]


def test_moments_that_make_no_sense_are_told() -> None:
    identity = magnetic("x,y,z,+1")
    assert "is no number" in one(block(cell(4.2), identity, ATOMS, moments("Fe1 a b c"))).warnings
    assert "moment of Co7 belongs to no site" in one(block(cell(4.2), identity, ATOMS, moments("Co7 0 0 1"))).warnings
    mirror = magnetic("x,y,z,+1", "x,y,-z,+1")  # which an axial vector along x does not survive
    flat = sites("Fe1 Fe 0 0 0", columns=COLUMNS)
    assert one(block(cell(4.2), mirror, flat, moments("Fe1 0 0 2"))).warnings == ""
    assert "does not allow its moment" in one(block(cell(4.2), mirror, flat, moments("Fe1 2 0 0"))).warnings
    grey = magnetic("x,y,z,+1", "x,y,z,-1")
    assert "does not allow its moment" in one(block(cell(4.2), grey, flat, moments("Fe1 0 0 2"))).warnings


def test_rows_of_one_label_have_its_moment() -> None:
    rows = sites("Fe1 Fe 0 0 0", "Fe1 Fe .5 .5 .5", columns=COLUMNS)
    found = one(block(cell(4.2), magnetic("x,y,z,+1"), rows, moments("Fe1 0 0 2")))
    assert json.loads(str(found.columns["magnetic_moments"])) == [[0, 0, 2], [0, 0, 2]]
