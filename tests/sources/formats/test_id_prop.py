"""`id_prop.csv` in both conventions: values reach their crystals, and each bad line has a reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from assay.sources import files
from assay.sources.formats import id_prop
from assay.sources.formats.writing.structures import FORMATS
from assay.sources.quarantine import Quarantined, Reason

DATA = Path(__file__).resolve().parents[2] / "data"


def folder(place: Path, text: str, *names: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(DATA / Path(name).name, place / name)
    (place / "id_prop.csv").write_text(text)
    return place


def values(path: Path) -> tuple[dict[str, tuple[float, ...]], dict[str, str]]:
    """Id -> values of each crystal, id -> message of each record."""
    crystals, refused = files.read(path)
    names = [name for name in crystals.columns if name.startswith("id_prop_")]
    rows = zip(*(crystals.columns[name].tolist() for name in names)) if names else [()] * len(crystals)
    return dict(zip(crystals.ids.tolist(), rows, strict=True)), {row.id: row.message for row in refused}


def test_a_folder_of_cgcnn(tmp_path: Path) -> None:
    place = folder(tmp_path, "MgB2,39.0\nLa1.85Sr0.15CuO4,38\n", "MgB2.cif", "La1.85Sr0.15CuO4.cif")
    (place / "atom_init.json").write_text('{"1": [0, 1, 0]}')
    assert values(place) == ({"file/La1.85Sr0.15CuO4.cif": (38.0,), "file/MgB2.cif": (39.0,)}, {})


def test_a_folder_of_alignn_with_two_targets_and_a_folder_below(tmp_path: Path) -> None:
    text = 'MgB2.cif,39.0,-1.5e-1\n"sub/Nb3Sn.vasp", 18.3, 2\n\n'
    place = folder(tmp_path, text, "MgB2.cif", "sub/Nb3Sn.vasp")
    assert values(place) == ({"file/MgB2.cif": (39.0, -0.15), "file/sub/Nb3Sn.vasp": (18.3, 2.0)}, {})


def test_a_list_that_is_named_stands_for_its_files_alone(tmp_path: Path) -> None:
    place = folder(tmp_path, "MgB2,39\n", "MgB2.cif", "Nb3Sn.vasp", "broken.cif")
    assert list(values(place / "id_prop.csv")[0]) == ["file/MgB2.cif"]
    found, refused = values(place)
    assert np.isnan(found.pop("file/Nb3Sn.vasp")[0])
    assert found == {"file/MgB2.cif": (39.0,)}
    assert list(refused) == ["file/broken.cif"]


def test_each_bad_line_has_a_reason_and_each_crystal_is_kept(tmp_path: Path) -> None:
    lines = [
        "id,tc",  # 1: a header
        "MgB2,39",
        "Nb3Sn.vasp,high",  # 3: no number
        "missing,1",  # 4: no file
        "../../MgB2,2",  # 5: not beside the list
        "two_frames.extxyz,3",  # 6: two crystals
        "La1.85Sr0.15CuO4,38",
        "La1.85Sr0.15CuO4.cif,36",  # 7 and 8: the same file
        "broken,4",  # has a record of its own
        "unknown_coordinates,1,2",  # 10: another number of values
        "Nb3Sn.vasp,nan",  # 11: not finite
        ",5",  # 12: no name
        "Nb3Sn.vasp",  # 13: no value
        "Nb3Sn.vasp,1_8.3",  # 14: 18.3 to Python alone
    ]
    names = (path.name for path in DATA.iterdir() if path.is_file())
    found, refused = values(folder(tmp_path, "\n".join(lines), *names))
    assert {id: value for id, (value,) in found.items() if not np.isnan(value)} == {"file/MgB2.cif": 39.0}
    assert len(found) == 5
    told = {int(id.partition("#")[2]): text for id, text in refused.items() if id.startswith("file/id_prop.csv#")}
    assert told == {
        1: "line 1: 'id,tc' is a header or holds no number; id_prop.csv has no header, delete the line",
        3: "line 3: 'high' of 'Nb3Sn.vasp' is no finite number",
        4: "line 4: no file 'missing', nor 'missing.cif' beside the list",
        5: "line 5: no file '../../MgB2', nor '../../MgB2.cif' beside the list",
        6: "line 6: two_frames.extxyz holds several structures, and one line cannot say which it means",
        7: "line 7: 'La1.85Sr0.15CuO4' is on lines 7, 8; keep one of them",
        8: "line 8: 'La1.85Sr0.15CuO4' is on lines 7, 8; keep one of them",
        10: "line 10: it has 2 values, other lines have 1",
        11: "line 11: 'nan' of 'Nb3Sn.vasp' is no finite number",
        12: "line 12: ',5' names no file",
        13: "line 13: 'Nb3Sn.vasp' has no value behind a comma",
        14: "line 14: '1_8.3' of 'Nb3Sn.vasp' is no finite number",
    }
    assert sorted(set(refused) - {f"file/id_prop.csv#{line}" for line in told}) == [
        "file/broken.cif",
        "file/unknown_coordinates.cif",
    ]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_a_record(tmp_path: Path, text: str) -> None:
    found, refused = values(folder(tmp_path, text, "MgB2.cif"))
    assert list(found) == ["file/MgB2.cif"]
    assert refused == {"file/id_prop.csv": "the list has no line"}


def test_lists_of_several_folders_keep_to_their_own(tmp_path: Path) -> None:
    folder(tmp_path / "a", "MgB2,39\n", "MgB2.cif")
    folder(tmp_path / "b", "MgB2,40\n", "MgB2.cif")
    wanted = {"file/a/MgB2.cif": (39.0,), "file/b/MgB2.cif": (40.0,)}
    assert values(tmp_path) == (wanted, {})
    crystals, _ = files.read_many([tmp_path / "a", tmp_path / "b"])
    assert dict(zip(crystals.ids.tolist(), crystals.columns["id_prop_1"].tolist())) == {
        "file/a/MgB2.cif": 39.0,
        "file/b/MgB2.cif": 40.0,
    }


def test_hundreds_of_real_crystals(tmp_path: Path, data: Path) -> None:
    from assay.sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet").slice(0, 200)
    crystals, _ = table.from_table(stored, "mp")
    lines = []
    for row, id in enumerate(crystals.ids.tolist()):
        name = f"{row:03d}"  # ids of digits stay texts
        (tmp_path / f"{name}.cif").write_text(FORMATS["cif"].write(crystals[row : row + 1], {"id": id}))
        lines.append(f"{name},{float(crystals.columns['e_form'][row])!r}\n")
    (tmp_path / "id_prop.csv").write_text("".join(reversed(lines)))
    read, refused = files.read(tmp_path)
    assert refused == []
    np.testing.assert_array_equal(read.columns["id_prop_1"], crystals.columns["e_form"])
    assert read.formulas().tolist() == crystals.formulas().tolist()


def test_lines_of_one_value_do_not_hide_those_of_many() -> None:
    given = id_prop.read("a,1\nb,1,2\nc,3,4\n")
    assert (given.columns, given.values) == (["id_prop_1", "id_prop_2"], {"b": (1.0, 2.0), "c": (3.0, 4.0)})
    assert given.refused == {1: "it has 1 value, other lines have 2"}


def test_a_record_names_the_list() -> None:
    from assay.sources.crystals import empty

    _, (record,) = id_prop.attach(id_prop.read("a,1\n"), "in/id_prop.csv", "/in/id_prop.csv", {}, empty(), [])
    assert isinstance(record, Quarantined)
    assert (record.id, record.origin, record.reason) == ("file/in/id_prop.csv#1", "/in/id_prop.csv", Reason.MALFORMED)
