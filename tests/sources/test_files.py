"""Structure files of every kind, whole folders of them, and files that are broken."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources import files, prototypes, table
from assay.sources.checks import limits
from assay.sources.formats import convert
from assay.sources.quarantine import Reason, Stage
from tests.sources.conftest import Lower

HERE = Path(__file__).parents[1] / "data"


def test_the_doped_cuprate_keeps_its_occupancy() -> None:
    crystals, refused = files.read(HERE / "La1.85Sr0.15CuO4.cif")
    assert not refused
    assert crystals.ids.tolist() == ["file/La1.85Sr0.15CuO4.cif"]
    assert crystals.formulas().tolist() == ["Sr0.15La1.85CuO4"]
    assert crystals.is_ordered.tolist() == [False]
    assert crystals.nsites.tolist() == [14]
    assert crystals.volume[0] == pytest.approx(3.7793**2 * 13.226, rel=1e-4)
    mixed = np.flatnonzero(np.diff(crystals.species_ptr) == 2)
    assert len(mixed) == 4
    for site in mixed:
        species = slice(*crystals.species_ptr[site : site + 2])
        shares = dict(zip(crystals.numbers[species].tolist(), crystals.occupancy[species].round(5).tolist()))
        assert shares == pytest.approx({57: 0.925, 38: 0.075})


def test_the_ordered_boride_is_ordered() -> None:
    crystals, refused = files.read(HERE / "MgB2.cif")
    assert not refused
    assert crystals.formulas().tolist() == ["MgB2"]
    assert crystals.is_ordered.tolist() == [True]
    assert np.allclose(sorted(crystals.frac[:, 2]), [0, 0.5, 0.5])


def test_poscar() -> None:
    crystals, refused = files.read(HERE / "Nb3Sn.vasp")
    assert not refused
    assert crystals.formulas().tolist() == ["Nb3Sn"]
    assert crystals.volume[0] == pytest.approx(5.29**3)


def test_extended_xyz_keeps_numbers_and_texts() -> None:
    crystals, refused = files.read(HERE / "two_frames.extxyz")
    assert not refused
    assert crystals.ids.tolist() == ["file/two_frames.extxyz", "file/two_frames.extxyz#2"]
    assert crystals.formulas().tolist() == ["NbC", "Nb"]
    assert crystals.columns["energy"].tolist() == [-20.5, -10.1]
    assert crystals.columns["tag"].tolist() == ["carbide", ""]
    assert np.array_equal(crystals.columns["pressure"], [np.nan, 0.5], equal_nan=True)


@pytest.mark.parametrize("name", ["broken.cif", "unknown_coordinates.cif"])
def test_an_unreadable_cif_is_one_record_with_one_line(name: str) -> None:
    crystals, refused = files.read(HERE / name)
    assert len(crystals) == 0
    assert [(record.id, record.reason, record.stage) for record in refused] == [
        (f"file/{name}", Reason.UNREADABLE, Stage.PULL)
    ]
    assert refused[0].message
    assert "\n" not in refused[0].message
    assert refused[0].origin.endswith(name)


def _cif(*sites: str, a: str = "4.0") -> str:
    cell = "".join(f"_cell_length_{x} {a}\n" for x in "abc") + "".join(
        f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma")
    )
    names = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = "loop_\n" + "".join(f"_atom_site_{name}\n" for name in names)
    return f"data_test\n{cell}_symmetry_space_group_name_H-M 'P 1'\n{loop}" + "".join(f"{site}\n" for site in sites)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.UNREADABLE),
        ("data_empty\n", Reason.UNREADABLE),
        ("not a cif at all", Reason.UNREADABLE),
        (_cif("Cu1 Cu 0 0 0 1", a="0"), Reason.UNREADABLE),
        (_cif("Cu1 Cu 0 0 0 1", a="nan"), Reason.UNREADABLE),
        (_cif("Cu1 Cu 0 0 nan 1"), Reason.UNREADABLE),
        (_cif("Cu1 Cu 0 0 0 1") + "_chemical_formula_sum 'Cu H2'\n", Reason.MALFORMED),
        (_cif("Cu1 Cu 0 0 0 1", a="40"), Reason.BAD_LATTICE),
        (_cif("Cu1 Cu 0 0 0 0.7", "Ni1 Ni 0 0 0 0.7"), Reason.BAD_OCCUPANCY),
        (_cif("X1 X 0 0 0 1"), Reason.UNKNOWN_SPECIES),
        (_cif("Cu1 Cu 0 0 0 1", "Va1 Va 0.5 0.5 0.5 1"), Reason.UNKNOWN_SPECIES),
        (_cif("Cu1 Cu 0 0 0 1", "OH1 OH 0.5 0.5 0.5 1"), Reason.UNSUPPORTED),
        (_cif("Cu1 Cu 0 0 0 1", "Wat1 Wat 0.5 0.5 0.5 1"), Reason.UNSUPPORTED),
    ],
)
def test_a_cif_that_cannot_be_used_says_why(tmp_path: Path, text: str, reason: Reason) -> None:
    (tmp_path / "a.cif").write_text(text)
    crystals, refused = files.read(tmp_path / "a.cif")
    assert len(crystals) == 0
    assert [record.reason for record in refused] == [reason], refused


def test_every_truncation_of_a_cif_ends_in_the_crystal_or_in_a_record(tmp_path: Path) -> None:
    text = (HERE / "La1.85Sr0.15CuO4.cif").read_text()
    for length in range(0, len(text), 23):
        (tmp_path / "a.cif").write_text(text[:length])
        crystals, refused = files.read(tmp_path / "a.cif")
        assert len(crystals) + len(refused) == 1, length
        if len(crystals):
            assert crystals.formulas().tolist() == ["Sr0.15La1.85CuO4"]


def test_a_cif_of_several_blocks_gives_each_its_own_fate(tmp_path: Path) -> None:
    blocks = (
        "data_global\n_publ_section_title 'none'\n"
        + _cif("Cu1 Cu 0 0 0 1")
        + _cif("Cu1 Cu ? 0 0 1").replace("data_test", "data_bad")
        + _cif("Ni1 Ni 0 0 0 1", "O1 O .5 .5 .5 .9").replace("data_test", "data_third")
    )
    (tmp_path / "many.cif").write_text(blocks)
    crystals, refused = files.read(tmp_path / "many.cif")
    assert crystals.ids.tolist() == ["file/many.cif", "file/many.cif#3"]
    assert crystals.formulas().tolist() == ["Cu", "Ni10O9"]
    assert [record.id for record in refused] == ["file/many.cif#2"]


def test_a_huge_cif_is_not_opened(tmp_path: Path) -> None:
    with open(tmp_path / "huge.cif", "wb") as file:
        file.truncate(limits.most("text") + 1)
    _, refused = files.read(tmp_path / "huge.cif")
    assert "more than 10,485,760 bytes of a CIF or POSCAR" in refused[0].message


def test_a_poscar_without_elements_is_not_guessed(tmp_path: Path) -> None:
    lines = (HERE / "Nb3Sn.vasp").read_text().splitlines()
    (tmp_path / "POSCAR").write_text("\n".join(["?", *lines[1:5], *lines[6:]]))
    crystals, refused = files.read(tmp_path / "POSCAR")
    assert len(crystals) == 0
    assert [record.reason for record in refused] == [Reason.UNREADABLE]


def test_a_molecule_is_not_periodic_and_a_torn_frame_ends_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nwater, less its hydrogen\nO 0 0 0\n")
    _, refused = files.read(tmp_path / "a.xyz")
    assert [record.reason for record in refused] == [Reason.NOT_PERIODIC]
    text = (HERE / "two_frames.extxyz").read_text()
    (tmp_path / "b.extxyz").write_text(text + "5\nLattice=1\nCu 0 0\n")
    crystals, refused = files.read(tmp_path / "b.extxyz")
    assert len(refused) == 1
    assert refused[0].reason is Reason.MALFORMED
    assert len(crystals) == 2


def test_a_folder_is_read_whole_in_order_and_each_file_once(tmp_path: Path) -> None:
    shutil.copytree(HERE, tmp_path / "in" / "deep")
    shutil.copy(HERE / "MgB2.cif", tmp_path / "in" / "A.cif")
    (tmp_path / "in" / ".hidden.cif").write_text("no")
    (tmp_path / "in" / "notes.txt").write_text("no")
    stored = prototypes.generate(5)
    table.write(table.to_table(stored), tmp_path / "in" / "z.parquet")
    (tmp_path / "in" / "z2.parquet").write_text("damaged")
    crystals, refused = files.read(tmp_path / "in")
    assert crystals.ids.tolist() == [
        "file/A.cif",
        "file/deep/La1.85Sr0.15CuO4.cif",
        "file/deep/MgB2.cif",
        "file/deep/Nb3Sn.vasp",
        "file/deep/two_frames.extxyz",
        "file/deep/two_frames.extxyz#2",
        *stored.ids.tolist(),
    ]
    assert crystals.columns["prototype"].tolist() == [""] * 6 + stored.columns["prototype"].tolist()
    assert np.isnan(crystals.columns["energy"][-5:]).all()
    assert sorted(record.id for record in refused) == [
        "file/deep/broken.cif",
        "file/deep/unknown_coordinates.cif",
        "file/z2.parquet",
    ]
    again, _ = files.read_many([tmp_path / "in", tmp_path / "in" / "A.cif"])
    assert again == crystals


def test_equal_names_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(HERE / "MgB2.cif", tmp_path / folder / "x.cif")
    crystals, _ = files.read_many([tmp_path / "one" / "x.cif", tmp_path / "two" / "x.cif"])
    assert crystals.ids.tolist() == ["file/one/x.cif", "file/two/x.cif"]


def test_what_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*absent\.cif"):
        files.read(tmp_path / "absent.cif")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.txt is of no known kind; known are \.cif"):
        files.read(tmp_path / "notes.txt")
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.parquet is no intact Parquet file"):
        files.read(tmp_path / "a.parquet")


def _entry(number: int, **changes: Any) -> dict[str, Any]:
    attributes = {
        "lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
        "cartesian_site_positions": [[0, 0, 0], [2.0, 2.0, 2.0]],
        "species_at_sites": ["Cs", "Cl"],
        "species": [{"name": name, "chemical_symbols": [name], "concentration": [1.0]} for name in ("Cs", "Cl")],
        "structure_features": [],
        "dimension_types": [1, 1, 1],
        "nsites": 2,
        **changes,
    }
    return {"type": "structures", "id": str(number), "attributes": attributes}


@pytest.mark.parametrize("ending", [".optimade.jsonl", ".optimade.jsonl.gz"])
def test_optimade_jsonl_is_streamed_and_bad_lines_cost_themselves(tmp_path: Path, ending: str) -> None:
    lines = [
        json.dumps({"x-optimade": {"api_version": "1.2.0"}}),
        json.dumps({"type": "info", "id": "structures", "properties": {}}),
        *(json.dumps(_entry(number)) for number in range(1, 2301)),
        "{not json",
        json.dumps(_entry(9999)).replace("2.0, 2.0, 2.0", "NaN, 2.0, 2.0"),
        "[" * 100_000,
        "",
        json.dumps({"type": "references", "id": "dijkstra"}),
        json.dumps(_entry(2301, lattice_vectors=[[4.0, 0, 0], [0, 4.0, 0], [0, 0, 0]])),
    ]
    path = tmp_path / f"lab{ending}"
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    crystals, refused = files.read(path)
    assert crystals.ids.tolist() == [f"lab/{number}" for number in range(1, 2301)]
    reasons = [record.reason for record in refused]
    assert reasons == [Reason.UNREADABLE] * 3 + [Reason.BAD_LATTICE]
    assert refused[0].id == f"file/{path.name}:2303"


def test_a_torn_or_swollen_gzip_is_told_and_what_came_before_is_kept(tmp_path: Path, lower: Lower) -> None:
    content = "\n".join(json.dumps(_entry(number)) for number in range(5000)).encode()
    torn = tmp_path / "torn.optimade.jsonl.gz"
    torn.write_bytes(gzip.compress(content)[:-2000])
    crystals, refused = files.read(torn)
    assert 0 < len(crystals) < 5000
    assert [record.reason for record in refused] == [Reason.UNREADABLE]
    bomb = tmp_path / "bomb.optimade.jsonl.gz"
    bomb.write_bytes(gzip.compress(b"\n" * 3_000_000 + content))
    lower("unpacked", 2_000_000)
    crystals, refused = files.read(bomb)
    assert len(crystals) == 0
    assert "bytes of a file, unpacked, at most 2,000,000 accepted" in refused[0].message
    assert refused[0].reason is Reason.TOO_LARGE


def test_files_written_by_pymatgen_read_back_as_the_crystals_they_were(tmp_path: Path) -> None:
    crystals = prototypes.generate(52)
    for structure, id in zip(convert.to_pymatgen(crystals), crystals.ids.tolist()):
        structure.to(filename=str(tmp_path / f"{id.replace('/', '_')}.cif"), fmt="cif")
    began = time.perf_counter()
    back, refused = files.read(tmp_path)
    assert time.perf_counter() - began < 60
    assert not refused
    found = {id[len("file/") : -len(".cif")]: row for row, id in enumerate(back.ids.tolist())}
    order = [found[id.replace("/", "_")] for id in crystals.ids.tolist()]
    assert np.allclose(back.composition()[order], crystals.composition(), atol=1e-3)
    assert np.allclose(back.volume[order], crystals.volume, rtol=1e-4)
