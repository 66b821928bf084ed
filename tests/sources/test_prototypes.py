"""Hypothetical crystals: right symmetry, sensible sizes, no repeats, the same for the same request."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources import prototypes, table
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS
from assay.sources.prototypes import PROTOTYPES, count, generate

MEASURED = """
A15 Nb-Sn 5.290 | A15 V-Si 4.722 | A15 Nb-Ge 5.140 | A15 Nb-Al 5.187 | A15 V-Ga 4.817 | A15 Mo-Ir 4.971
AlB2 Mg-B 3.086 3.524 | AlB2 Al-B 3.009 3.262 | AlB2 Nb-B 3.110 3.267 | AlB2 Zr-B 3.169 3.530 | AlB2 Ca-Ga 4.323 4.323
ThCr2Si2 Ba-Fe-As 3.963 13.017 | ThCr2Si2 Sr-Fe-As 3.924 12.364 | ThCr2Si2 K-Fe-As 3.842 13.861
ThCr2Si2 K-Fe-Se 3.913 14.040 | ThCr2Si2 Ca-Fe-As 3.896 11.690
CeRu2Si2 Ce-Cu-Si 4.103 9.930 | CeRu2Si2 U-Ru-Si 4.128 9.574 | CeRu2Si2 Y-Rh-Si 4.019 9.930
CeRu2Si2 La-Ru-P 4.031 10.675
borocarbide Lu-Ni-B-C 3.464 10.631 | borocarbide Y-Ni-B-C 3.526 10.542 | borocarbide Y-Pd-B-C 3.710 10.810
ZrCuSiAs La-Fe-As-O 4.035 8.741 | ZrCuSiAs Sm-Fe-As-O 3.940 8.496 | ZrCuSiAs La-Fe-P-O 3.964 8.512
ZrCuSiAs Th-Fe-As-N 4.037 8.526 | ZrCuSiAs Ca-Fe-As-F 3.878 8.593 | ZrCuSiAs La-Ni-As-O 4.123 8.188
PbFCl Li-Fe-As 3.791 6.364 | PbFCl Na-Fe-As 3.947 6.993
anti-PbO Fe-Se 3.773 5.526 | anti-PbO Fe-S 3.683 5.030 | anti-PbO Fe-Te 3.826 6.273
K2NiF4 La-Cu-O 3.779 13.226 | K2NiF4 Sr-Ru-O 3.871 12.739 | K2NiF4 K-Ni-F 4.006 13.076
K2NiF4 Sr-Ti-O 3.886 12.600 | K2NiF4 La-Ni-O 3.868 12.700 | K2NiF4 Sr-Ir-O 3.890 12.900
T-prime Nd-Cu-O 3.945 12.171 | T-prime Pr-Cu-O 3.962 12.214 | T-prime Sm-Cu-O 3.914 11.972
infinite-layer Ca-Cu-O 3.856 3.181 | infinite-layer Sr-Cu-O 3.926 3.432 | infinite-layer Nd-Ni-O 3.921 3.281
infinite-layer Sr-Fe-O 3.991 3.474 | infinite-layer La-Ni-O 3.966 3.376 | Hg1201 Hg-Ba-Cu-O 3.875 9.513
perovskite Sr-Ti-O 3.905 | perovskite Ba-Bi-O 4.350 | perovskite K-Ta-O 3.989 | perovskite Ba-Zr-O 4.193
perovskite K-Ni-F 4.012 | perovskite La-Al-O 3.790
antiperovskite Mg-C-Ni 3.812 | antiperovskite Zn-C-Ni 3.660 | antiperovskite Sn-N-Mn 4.060
antiperovskite Al-C-Fe 3.770
rock-salt Nb-C 4.470 | rock-salt Nb-N 4.392 | rock-salt Zr-N 4.578 | rock-salt V-N 4.140 | rock-salt Na-Cl 5.640
rock-salt Mg-O 4.212 | rock-salt La-S 5.854 | rock-salt Sn-Te 6.327
CsCl Y-Rh 3.410 | CsCl Al-Ni 2.887 | CsCl Ti-Ni 3.015 | CsCl Y-Ag 3.619
Cu3Au Y-Sn 4.667 | Cu3Au La-In 4.739 | Cu3Au Ce-In 4.689 | Cu3Au Y-Pd 4.069
Heusler Pd-Y-Sn 6.716 | Heusler Ni-Zr-Al 6.123 | Heusler Ni-Mn-Ga 5.825 | Heusler Co-Ti-Al 5.847
half-Heusler Pt-Y-Bi 6.652 | half-Heusler Ni-Ti-Sn 5.920 | half-Heusler Pt-Lu-Bi 6.578 | half-Heusler Co-Zr-Sb 6.068
fluorite Ca-F 5.463 | fluorite Co-Si 5.365 | fluorite Au-Al 6.000 | fluorite Y-H 5.205 | fluorite Zr-H 4.780
K2PtCl6 Mg-Fe-H 6.437 | K2PtCl6 Sr-Ru-H 7.608 | K2PtCl6 Ca-Fe-H 7.038
C15 Ce-Ru 7.536 | C15 Zr-V 7.440 | C15 La-Al 8.145 | C15 Hf-V 7.386 | C15 Mg-Cu 7.034
filled-skutterudite La-Fe-P 7.832 | filled-skutterudite Pr-Os-Sb 9.302 | filled-skutterudite La-Ru-P 8.056
2H-NbSe2 Nb-Se 3.445 12.551 | 2H-NbSe2 Nb-S 3.310 11.890 | 2H-NbSe2 Ta-S 3.314 12.097
CdI2 Ti-Se 3.540 6.008 | CdI2 Ti-S 3.407 5.695 | CdI2 Ta-S 3.365 5.897 | CdI2 Zr-Te 3.950 6.630
Chevrel Pb-Mo-S 9.180 11.480 | Chevrel Sn-Mo-S 9.173 11.369 | Chevrel La-Mo-Se 9.600 12.100
"""
"""Structure type, elements on its roles, measured a and c in Å of the conventional cell."""

IN_MATERIALS_PROJECT = {
    "A15": "mp-259 Mo-Al", "AlB2": "mp-1472 Zr-B", "ThCr2Si2": "mp-568747 K-Ni-Se", "CeRu2Si2": "mp-568832 Y-Ru-P",
    "borocarbide": "mp-20728 Gd-Ni-B-C", "ZrCuSiAs": "mp-505259 Sm-Fe-P-O", "PbFCl": "mp-20698 Li-Co-As",
    "anti-PbO": "mp-505531 Fe-S", "K2NiF4": "mp-1025349 Sr-Zr-O", "T-prime": "mp-4181 Pr-Cu-O",
    "infinite-layer": "mp-37514 Sr-Cu-O", "Hg1201": "mp-6562 Hg-Ba-Cu-O", "perovskite": "mp-3020 Ba-Nb-O",
    "antiperovskite": "mp-4230 Tl-C-Sc", "rock-salt": "mp-1282 V-C", "CsCl": "mp-305 Ti-Fe", "Cu3Au": "mp-635 Sc-Rh",
    "Heusler": "mp-19904 Ni-Zr-Sb", "half-Heusler": "mp-3716 Ni-Tb-Sb", "fluorite": "mp-24728 V-H",
    "K2PtCl6": "mp-1079896 Ca-Ru-H", "C15": "mp-480 Er-Pt", "filled-skutterudite": "mp-1106066 La-Os-Sb",
    "2H-NbSe2": "mp-2207 Nb-Se", "CdI2": "mp-1186 Zr-S", "Chevrel": "mp-555066 Pb-Mo-S",
}  # fmt: skip


def _compound(name: str, elements: str) -> Crystals:
    """The ordered decoration of one structure type with the given elements."""
    found = generate(count([name], elements.split("-")), prototypes=[name], elements=elements.split("-"))
    rows = np.flatnonzero(found.ids == f"prototype/{name}/{elements}")
    assert len(rows) == 1, f"{name} {elements}"
    return found.select(rows)


def _symmetry(crystals: Crystals, row: int = 0):
    import spglib

    sites = slice(*crystals.site_ptr[row : row + 2])
    cell = (crystals.lattice[row], crystals.frac[sites], crystals.numbers[crystals.species_ptr[:-1]][sites])
    return spglib.get_symmetry_dataset(cell, symprec=1e-4), spglib.find_primitive(cell, symprec=1e-4)


@pytest.mark.parametrize("name", PROTOTYPES)
def test_space_group_and_primitive_cell(name: str) -> None:
    crystals = generate(12, seed=1, prototypes=[name]).select([0, 2, 4, 6])
    for row in range(len(crystals)):
        dataset, primitive = _symmetry(crystals, row)
        assert dataset.number == PROTOTYPES[name].group
        assert len(primitive[2]) == crystals.nsites[row]


def test_sizes_against_measured_compounds() -> None:
    """Of 162 lattice parameters of 109 compounds: median error 1.1 %, nine in ten within 3.1 %, worst 9.3 % (MgO).

    Not a held-out score: most of these compounds, measured or relaxed, were among the cells the
    rules were fitted to.
    """
    errors = {}
    for entry in MEASURED.replace("\n", "|").split("|"):
        if not entry.strip():
            continue
        name, elements, *measured = entry.split()
        dataset, _ = _symmetry(_compound(name, elements))
        a, _, c = np.linalg.norm(dataset.std_lattice, axis=1)
        for axis, found, real in zip("ac", (a, c), measured):
            errors[f"{name} {elements} {axis}"] = found / float(real) - 1
    sizes = np.abs(list(errors.values()))
    assert set(PROTOTYPES) == {key.split()[0] for key in errors}
    assert np.median(sizes) < 0.015
    assert np.quantile(sizes, 0.9) < 0.04
    assert (sizes < 0.06).mean() > 0.95
    assert sizes.max() < 0.10


@pytest.mark.parametrize("name", PROTOTYPES)
def test_the_same_structure_as_the_materials_project_has(name: str, data: Path) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from assay.sources.formats.convert import to_pymatgen

    id, elements = IN_MATERIALS_PROJECT[name].split()
    real = _materials_project(data, id)
    matcher = StructureMatcher(ltol=0.1, stol=0.15, angle_tol=3, primitive_cell=False)
    assert matcher.fit(to_pymatgen(real)[0], to_pymatgen(_compound(name, elements))[0])


def _materials_project(data: Path, id: str) -> Crystals:
    import pyarrow.compute as pc

    for name in ("mp_labelled_le40", "mp_unlabelled_le40"):
        rows = table.read(
            data / "mp" / f"{name}.parquet", columns=["id", "n_sites", "lattice", "frac_coords", "atomic_numbers"]
        )
        rows = rows.filter(pc.equal(rows["id"], id))
        if rows.num_rows:
            return table.from_table(rows, name)[0]
    raise AssertionError(f"{id} is in no file")


def test_no_two_atoms_touch() -> None:
    crystals = generate(2600, seed=3)
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
    shortest = []
    for row in range(len(crystals)):
        frac = crystals.frac[slice(*crystals.site_ptr[row : row + 2])]
        gaps = (frac[:, None, None] - frac[None, :, None] + shifts) @ crystals.lattice[row]
        distances = np.linalg.norm(gaps, axis=-1)
        shortest.append(distances[distances > 1e-6].min())
    assert min(shortest) > 1.3
    per_atom = crystals.volume / crystals.composition().sum(axis=1)
    assert per_atom.min() > 4
    assert per_atom.max() < 60


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 120),
    st.integers(0, 120),
    st.integers(0, 2**40),
    st.lists(st.sampled_from(list(PROTOTYPES)), min_size=1, max_size=4),
)
def test_a_longer_request_begins_with_the_shorter(k: int, more: int, seed: int, names: list[str]) -> None:
    whole = generate(k + more, seed, names)
    assert whole[:k] == generate(k, seed, names)
    assert whole[k:] == generate(more, seed, names, start=k)


def test_two_calls_agree_and_two_seeds_do_not() -> None:
    assert generate(500, seed=5) == generate(500, seed=5)
    assert set(generate(500, seed=5).ids) != set(generate(500, seed=6).ids)


def test_few_crystals_cover_every_type_ordered_and_doped() -> None:
    crystals = generate(2 * len(PROTOTYPES))
    assert crystals.columns["prototype"].tolist() == [*PROTOTYPES, *PROTOTYPES]
    assert crystals.is_ordered.tolist() == [True] * len(PROTOTYPES) + [False] * len(PROTOTYPES)


@pytest.mark.parametrize("name", ["anti-PbO", "2H-NbSe2", "PbFCl", "K2NiF4"])
def test_every_decoration_comes_exactly_once(name: str) -> None:
    total = count([name])
    crystals = generate(total, seed=9, prototypes=[name])
    assert len(set(crystals.ids.tolist())) == total
    rows = np.round(crystals.composition(), 4)
    assert len(np.unique(rows, axis=0)) == total
    with pytest.raises(ValueError, match=f"there are {total} from 0 on"):
        generate(total + 1, prototypes=[name])


def test_types_drop_out_when_used_up_and_the_rest_goes_on() -> None:
    small, large = count(["anti-PbO"]), count(["CdI2"])
    crystals = generate(small + large, prototypes=["anti-PbO", "CdI2"])
    names, amounts = np.unique(crystals.columns["prototype"], return_counts=True)
    assert dict(zip(names.tolist(), amounts.tolist())) == {"anti-PbO": small, "CdI2": large}


def test_there_are_millions_and_far_ones_need_not_wait() -> None:
    assert count() > 5_000_000
    began = time.perf_counter()
    assert len(generate(10, start=5_000_000)) == 10
    assert time.perf_counter() - began < 5


def test_doping_is_bounded_and_charges_add_up() -> None:
    crystals = generate(3000, seed=2)
    minor = crystals.occupancy[crystals.occupancy < 0.5].astype(float)
    assert set(minor.round(5)) == set(prototypes.FRACTIONS)
    assert np.allclose(crystals.site_occupancy, 1)
    charge = crystals.columns["net_charge"]
    balanced = np.array([PROTOTYPES[name].balanced for name in crystals.columns["prototype"]])
    assert np.array_equal(np.isnan(charge), ~balanced)
    assert (charge[balanced & crystals.is_ordered] == 0).all()
    lsco = _named(generate(count(["K2NiF4"], ["La", "Sr", "Cu", "O"]), 0, ["K2NiF4"], ["La", "Sr", "Cu", "O"]))
    assert lsco["prototype/K2NiF4/La0.95Sr0.05-Cu-O"] == pytest.approx(-0.1)


def _named(crystals: Crystals) -> dict[str, float]:
    return dict(zip(crystals.ids.tolist(), crystals.columns["net_charge"].tolist()))


def test_only_allowed_elements_appear() -> None:
    allowed = ["La", "Sr", "Ba", "Cu", "Ni", "O", "Fe", "As"]
    crystals = generate(count(elements=allowed), elements=allowed)
    assert {SYMBOLS[z] for z in np.unique(crystals.numbers)} <= set(allowed)
    assert "prototype/K2NiF4/La-Cu-O" in crystals.ids.tolist()
    assert count(elements=["He"]) == 0
    assert len(generate(0, elements=["He"])) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1, "prototypes": ["perovskit"]}, "unknown structure type 'perovskit', did you mean 'perovskite'"),
        ({"n": 1, "elements": ["Xx"]}, "unknown element 'Xx'"),
        ({"n": -1}, "asked for decorations 0 to -1"),
        ({"n": 1, "elements": ["He"]}, "there are 0"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**arguments)


def test_tens_of_thousands_a_second() -> None:
    generate(100)
    began = time.perf_counter()
    generate(20_000, seed=4)
    assert time.perf_counter() - began < 4  # 0.1 s on a quiet core
