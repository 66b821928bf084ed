"""Training sets: every named one loads with the documented counts, own files load too, every lost row is counted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from assay.sources import datasets, table
from assay.sources.checks.unchecked import pointer
from assay.sources.crystals import Crystals
from assay.sources.dataset_table import DATASETS, FAMILIES
from assay.sources.elements import NUMBERS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "data.md").read_text()
LARGE = ("mp-formation-energy", "mp-band-gap")  # read in part: the rest of the file has no other columns
SMALL = sorted(set(DATASETS) - set(LARGE))

Site = dict[str, float]
"""Occupancy by symbol."""


def crystals_of(*cells: list[Site]) -> Crystals:
    """Crystals with the given sites, in cubes of 20 Å^3 per site."""
    sites = [site for cell in cells for site in cell]
    return Crystals(
        ids=np.array([f"own/{k}" for k in range(len(cells))]),
        lattice=np.array([np.eye(3) * (20 * len(cell)) ** (1 / 3) for cell in cells]),
        site_ptr=pointer([len(cell) for cell in cells]),
        frac=np.array([[k / len(cell), 0.3, 0.5] for cell in cells for k in range(len(cell))]),
        species_ptr=pointer([len(site) for site in sites]),
        numbers=np.array([NUMBERS[symbol] for site in sites for symbol in site]),
        occupancy=np.array([share for site in sites for share in site.values()], np.float32),
    )


MGB2: list[Site] = [{"Mg": 1}, {"B": 1}, {"B": 1}]
DOPED: list[Site] = [{"Mg": 0.8, "Al": 0.2}, {"B": 1}, {"B": 1}]
SALT: list[Site] = [{"Na": 1}, {"Cl": 1}]


def own(folder: Path, crystals: Crystals, name: str = "own", column: str = "gap") -> str:
    return datasets.save(folder / f"{name}.parquet", crystals, column, np.arange(len(crystals)) + 0.5)


def documented(name: str) -> list[str]:
    """Cells of the row of docs/data.md that describes a training set."""
    rows = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", DOCUMENT, re.MULTILINE)
    assert len(rows) == 1, f"docs/data.md has {len(rows)} rows for {name}"
    return [cell.strip() for cell in rows[0].split("|")]


@pytest.mark.parametrize("name", DATASETS)
def test_the_document_lists_every_set_with_unit_theory_and_licence(name: str) -> None:
    spec, cells = DATASETS[name], documented(name)
    assert cells[0].startswith(f"`{spec.path}`: `{spec.target}`")
    assert cells[5] == spec.unit.replace("^", "<sup>").replace("m<sup>2", "m<sup>2</sup>")
    assert cells[6] == spec.functional.split(":")[0]
    assert cells[7] == spec.licence


def test_every_row_of_the_document_is_a_set() -> None:
    section = DOCUMENT.partition("## Training sets")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.MULTILINE)) == {*DATASETS, *datasets.FORMULAS}


@pytest.mark.parametrize("name", SMALL)
def test_a_set_loads_with_the_documented_counts(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    loaded = datasets.load(name)
    counts = [len(loaded.target), loaded.refused, len(set(loaded.groups)), len(set(loaded.keys["formula"]))]
    assert [f"{count:,}" for count in counts] == documented(name)[1:5]
    check(loaded)
    stored = table.read(data / loaded.spec.path)
    total = int(np.sum(stored[loaded.spec.rows])) if loaded.spec.rows else stored.num_rows
    assert len(loaded.target) + loaded.refused == total
    if loaded.crystals.is_ordered.all():
        formulas = stored["formula"].to_pylist()
        assert len(set(loaded.keys["formula"])) <= len(set(formulas))


@pytest.mark.parametrize("name", LARGE)
def test_a_large_set_loads(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    loaded = datasets.load(name, limit=400)
    assert len(loaded.target) + loaded.refused == 400
    check(loaded)


def check(loaded: datasets.Dataset) -> None:
    n = len(loaded.target)
    assert len(loaded.crystals) == len(loaded.weight) == len(loaded.target_std) == n
    assert np.isfinite(loaded.target).all()
    assert (loaded.weight > 0).all()
    assert {"element-set", "formula", "row"} <= set(loaded.keys)
    assert all(labels.shape == (n,) and (labels != "").all() for labels in loaded.keys.values())
    assert len(set(loaded.keys["row"])) == n
    some = loaded.select(np.arange(0, n, 7), "not every seventh")
    assert some.dropped["not every seventh"] == n - len(some.target)
    assert some.refused + len(some.target) == loaded.refused + n
    assert some.keys["formula"].tolist() == loaded.keys["formula"][::7].tolist()
    assert some.groups.tolist() == some.crystals.elements().tolist()


def test_3dsc_has_families_noise_and_one_label_per_formula(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    loaded = datasets.load("3dsc-tc-one-per-formula")
    family, formula = loaded.keys["family"], loaded.keys["formula"]
    assert set(family) == {*FAMILIES.values(), "mixed"}
    assert len(set(formula)) == len(formula) - 2  # Hg0.714Tl0.286 is Hg5Tl2, La2CuO4.003 is La2CuO4 within rounding
    holds = {z: loaded.crystals.composition()[:, NUMBERS[z]] > 0 for z in ("Cu", "O", "Fe", "Ni")}
    assert (holds["Cu"] & holds["O"])[family == "cuprates"].all()
    assert (holds["Fe"] | holds["Ni"])[family == "iron-based"].all()
    assert holds["Fe"][family == "iron-based"].mean() > 0.9
    known = np.isfinite(loaded.target_std)
    assert 0 < known.sum() < len(known)
    assert loaded.target_std[known].max() <= 5  # 3DSC's own rule
    agree = [mine == theirs for mine, theirs in zip(formula, loaded.crystals.formulas())]
    assert np.mean(agree) > 0.9


def test_formulas_of_two_sets_can_be_compared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    first, second = datasets.load("phonons"), datasets.load("dielectric")
    by_label = np.isin(first.keys["formula"], second.keys["formula"])
    np.testing.assert_array_equal(datasets.same_formula(first, second), by_label)
    assert 0 < by_label.sum() < len(by_label)
    measured = datasets.load("3dsc-tc-one-per-formula")
    shared = datasets.same_formula(measured, first)
    assert shared[np.isin(measured.keys["formula"], first.keys["formula"])].all()


def test_energies_that_nobody_believes_are_refused_and_counted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    loaded = datasets.load("oqmd-formation-energy")
    assert np.abs(loaded.target).max() <= 5
    assert loaded.dropped == {"no value": 1825, "not within -5 to 5 eV/atom": 1}


def test_a_file_of_ones_own_is_written_and_loaded(tmp_path: Path) -> None:
    crystals = crystals_of(MGB2, DOPED, SALT).with_columns(family=np.array(["boride", "boride", ""]), gap_std=[1, 2, 3])
    name = datasets.save(
        tmp_path / "own.parquet", crystals, "gap", [0.1, np.nan, 8.5], unit="eV", functional="PBE", licence="CC0-1.0"
    )
    assert name == f"{tmp_path}/own.parquet#gap"
    loaded = datasets.load(name)
    assert loaded.target.tolist() == [0.1, 8.5]
    assert loaded.target_std.tolist() == [1, 3]
    assert loaded.weight.tolist() == [1, 1]
    assert loaded.keys["family"].tolist() == ["boride", "unknown"]
    assert loaded.keys["formula"].tolist() == ["MgB2", "NaCl"]
    assert loaded.keys["row"].tolist() == ["own/0", "own/2"]
    assert loaded.dropped == {"no value": 1}
    spec = loaded.spec
    assert (spec.unit, spec.functional, spec.licence, spec.origin) == ("eV", "PBE", "CC0-1.0", "unknown")
    assert datasets.load(name, limit=1).target.tolist() == [0.1]


def test_a_file_that_says_nothing_is_of_unknown_unit(tmp_path: Path) -> None:
    table.write(table.to_table(crystals_of(MGB2, SALT).with_columns(e=[1.0, 2.0])), tmp_path / "plain.parquet")
    spec = datasets.load(f"{tmp_path}/plain.parquet#e").spec
    assert {spec.unit, spec.functional, spec.licence, spec.origin} == {"unknown"}


def test_one_composition_on_mixed_sites_has_one_label(tmp_path: Path) -> None:
    half: list[Site] = [{"Al": 1}, {"Cu": 0.5}]
    loaded = datasets.load(own(tmp_path, crystals_of(half, [{"Al": 1}, {"Al": 1}, {"Cu": 1}], DOPED, SALT)))
    assert loaded.keys["formula"].tolist() == ["CuAl2", "CuAl2", "Mg4AlB10", "NaCl"]


def test_same_formula_sees_through_cells_and_occupancies(tmp_path: Path) -> None:
    nearly: list[Site] = [{"Mg": 0.79999, "Al": 0.20001}, {"B": 1}, {"B": 1}]
    other: list[Site] = [{"Mg": 0.79, "Al": 0.21}, {"B": 1}, {"B": 1}]
    split_sites: list[Site] = [{"Mg": 0.5}, {"Mg": 0.5}, {"B": 1}, {"B": 1}]
    first = datasets.load(
        own(tmp_path, crystals_of(MGB2, nearly, other, SALT, split_sites, [{"B": 1}, {"Mg": 1}]), "a")
    )
    second = datasets.load(own(tmp_path, crystals_of(DOPED, MGB2 * 2, [{"Fe": 1}]), "b"))
    assert datasets.same_formula(first, second).tolist() == [True, True, False, False, True, False]
    assert datasets.same_formula(second, first).tolist() == [True, True, False]


def test_formulas_of_up_to_40_atoms_stay_apart() -> None:
    shares = {a / n for n in range(1, 41) for a in range(1, n)}
    assert np.diff(sorted(shares)).min() > datasets.SAME_SHARE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("3dsc", r"dataset '3dsc' is not one of \['2d-gap', .*\], nor FILE.parquet#COLUMN"),
        ("{}/own.parquet#e_form", "has no column 'e_form'; it has id, nsites, .*gap"),
        ("{}/own.parquet#id", "column 'id' of .* has not one number per crystal"),
        ("{}/own.parquet#word", "column 'word' of .* has not one number per crystal but texts, the first is '27.1'"),
        ("{}/own.parquet#flag", "column 'flag' of .* has not one number per crystal but flags, the first is True"),
        ("{}/own.parquet#pair", "column 'pair' of .* has not one number per crystal but 2; give each number a column"),
        ("{}/own.parquet#nothing", r"no sound crystal with a value of 'nothing': \{'no value': 2\}"),
        ("{}/own.parquet#weight", "column 'weight' of .* is 0.0 for 'own/1', expected above 0"),
        ("{}/empty.parquet#gap", r"no sound crystal with a value of 'gap': \{'no value': 2\}"),
        ("{}/twice.parquet#gap", "has 2 rows of id 'own/0', expected one"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(name: str, message: str, tmp_path: Path) -> None:
    two = crystals_of(MGB2, SALT)
    odd = {"word": ["27.1", ""], "flag": [True, False], "pair": np.ones((2, 2)), "nothing": np.array([None, None])}
    own(tmp_path, two.with_columns(weight=[1.0, 0.0], **odd))
    datasets.save(tmp_path / "empty.parquet", two, "gap", [np.nan, np.inf])
    own(tmp_path, two.select([0, 0]), "twice")
    with pytest.raises(ValueError, match=message):
        datasets.load(name.format(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.parquet is missing; a dataset of your own"):
        datasets.load(f"{tmp_path}/absent.parquet#gap")
    monkeypatch.setenv(datasets.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"3dsc_mp.parquet is missing: it is 3DSC_MP, rebuilt"):
        datasets.load("3dsc-tc")
    monkeypatch.delenv(datasets.VARIABLE)
    with pytest.raises(FileNotFoundError, match="ASSAY_DATA is not set; .*3dsc_mp.parquet"):
        datasets.load("3dsc-tc")


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    one = crystals_of(SALT)
    with pytest.raises(ValueError, match=r"ends in '.csv', expected .parquet"):
        datasets.save(tmp_path / "own.csv", one, "gap", [1])
    with pytest.raises(ValueError, match="unknown fact 'units', expected any of unit, functional, licence, origin"):
        datasets.save(tmp_path / "own.parquet", one, "gap", [1], units="eV")
    with pytest.raises(ValueError, match="'occupancy' has the name of a crystal field"):
        datasets.save(tmp_path / "own.parquet", one, "occupancy", [1])


def test_the_lines_of_the_document_make_a_training_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("structures").mkdir()
    for name in ("MgB2.cif", "La1.85Sr0.15CuO4.cif"):
        shutil.copy(ROOT / "tests" / "data" / name, "structures")
    Path("structures/id_prop.csv").write_text("MgB2.cif,0\n")
    (lines,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    exec(lines, {})
    loaded = datasets.load("gaps.parquet#gap")
    assert loaded.keys["row"].tolist() == ["file/MgB2.cif"]
    assert loaded.dropped == {"no value": 1}
    assert loaded.spec.unit == "eV"
