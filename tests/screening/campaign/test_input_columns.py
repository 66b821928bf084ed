"""Columns of the input that have names of Assay's: they stand aside, and change no column and no sentence of Assay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.screening.audit import audit as verify
from assay.screening.campaign import plan
from assay.screening.campaign.plan import Plan
from assay.screening.folder.results import Results
from assay.screening.prediction import inputs, output
from assay.screening.settings import config, names, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.formats import convert
from tests.screening import small_campaign
from tests.screening.small_campaign import some_members, write_config

PROPERTY = "formation_energy"
OLD = {"energy_above_hull": 0.0, "energy_above_hull_functional": "PBE"}
"""What the sources report under names of their own."""


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("ensembles")
    return {
        name: some_members(place / name, model, members) for name, members in {"full": (0, 1), "fast": (2, 3)}.items()
    }


@pytest.fixture(scope="module")
def crystals(real: Crystals) -> Crystals:
    """16 crystals that are called as they are in a database, with no column but `OLD`."""
    bare = real[:16]
    columns = {name: np.full(16, value) for name, value in OLD.items()}
    return Crystals(bare.ids, bare.lattice, bare.site_ptr, bare.frac, bare.species_ptr, bare.numbers, bare.occupancy,
                    columns)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "server", "hint"),
    [
        ("formation_enrgy", False, r"predict \(formation_energy\).*did you mean 'formation_energy'"),
        ("formation_enrgy", True, "did you mean 'formation_energy'"),
        ("qqq", False, "there is: .*formation_energy"),
        ("nsites", False, None),
        ("ood_distance", False, None),
        ("price", False, None),
        ("price", True, None),
        ("delivered_by", True, None),  # a server may report it
        ("band_gap_hse", True, None),
    ],
)  # fmt: skip
def test_a_mistyped_objective_is_refused_before_the_pull(
    name: str, server: bool, hint: str | None, real: Crystals, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.parquet"
    table.write(table.to_table(real[:4].with_columns(price=np.ones(4))), path)
    sources: list[dict[str, Any]] = [{"kind": "files", "paths": [str(path)]}]
    if server:
        sources.append({"kind": "optimade", "provider": "http://127.0.0.1:9", "name": "s"})
    rank = {"objectives": [{"property": "formation_energy", "order": "ascending"}, {"property": name}]}
    content = {"name": "t", "sources": sources, "models": [str(model)], "rank": rank, "output": str(tmp_path / "out")}
    chosen = yamlfile.validate(config.Campaign, content, "here")
    if hint is None:
        assert plan.make(chosen).objectives[1].name == name
        return
    with pytest.raises(Failure, match=rf"rank\.objectives\.1\.property: '{name}' is no property .*{hint}") as caught:
        plan.make(chosen)
    assert caught.value.code is Exit.CONFIG


def campaign(place: Path, folders: dict[str, Path], zoo: Path, **keys: Any) -> Plan:
    """A campaign with all there is: two sources, identity, filters, a cascade with an audit, several ensembles."""
    cheap = {"tiers": [{"model": str(folders["fast"]), "keep": 0.5}], "audit": 3}
    everything = {
        "models": [str(folders["full"]), str(zoo / "tc-graphs")],
        "cascade": cheap,
        "identity": True,
        "rank": {"by": "probability", "threshold": -1.0, "order": "ascending", "top": 16},
        "filters": {"reported": {"energy_above_hull": {"max": 0.5}}},
        "output": str(place / "out"),
    }
    asked = small_campaign.make(write_config(place, folders["full"], **everything | keys))
    assert small_campaign.run(asked).code is Exit.DONE
    assert verify.check(asked.folder).problems == []
    return asked


def write(place: Path, content: pa.Table) -> Path:
    """Two files, with one crystal in both."""
    place.mkdir()
    table.write(content.slice(0, 10), place / "a.parquet")
    twin = content.slice(0, 1).set_column(0, "id", pa.array(["twin"]))
    table.write(pa.concat_tables([content.slice(10), twin]), place / "b.parquet")
    return place


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path], zoo: Path, crystals: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign folder of sources without a column that is called like one of Assay's."""
    place = write(tmp_path_factory.mktemp("plain") / "in", table.to_table(crystals))
    return campaign(place, folders, zoo).folder


def tables(folder: Path) -> dict[str, pa.Table]:
    return {name: table.read(folder / f"{name}.parquet") for name in ("candidates", "unrankable")}


def test_every_column_that_is_written_is_in_the_list(plain: Path, zoo: Path, crystals: Crystals) -> None:
    written = {name for content in tables(plain).values() for name in content.column_names}
    written |= set(inputs.predict(crystals[:3], zoo / "tc-graphs").with_formulas().column_names)
    assert {"rank", "score", "ids", "spacegroup", "tier", "audit", "tier_0_score", "ood_distance"} < written
    assert {f"{PROPERTY}_member_1", "tc_mean", "energy_above_hull_spread", "energy_above_hull_functionals"} < written
    assert {name for name in written if name not in names.OWN} == set(OLD)
    assert table.read(plain / "quarantine.parquet").schema.names == table.QUARANTINE_SCHEMA.names
    # what a vision network adds, and the warnings of a file
    assert all(name in names.OWN for name in ("tc_disagreement", "tc_view_spread", "warnings"))


@pytest.mark.parametrize("numbers", [True, False])
def test_no_column_of_the_input_takes_the_place_of_one_of_ours(
    plain: Path, folders: dict[str, Path], zoo: Path, crystals: Crystals, tmp_path: Path, numbers: bool
) -> None:
    """For each column that a campaign writes, the input has one of the same name, and one that was set aside before."""
    fields = {field.name for field in table.CRYSTAL_FIELDS}
    taken = [name for name in tables(plain)["candidates"].column_names if name not in {*OLD, *fields}]
    taken += [f"{PROPERTY}_member_7", f"{PROPERTY}_member_x", f"{PROPERTY}_disagreement", "tier_9_score", "warnings"]
    every = [name for bare in taken for name in (bare, f"reported_{bare}", f"reported_reported_{bare}")]
    every = [name for name in every if numbers or not name.endswith("warnings")]
    content = table.to_table(crystals)
    for place, name in enumerate(every):
        values = [1000.0 * place + row if numbers else f"{name} of {row}" for row in range(len(crystals))]
        content = content.append_column(name, pa.array(values))
    folder = campaign(write(tmp_path / "in", content), folders, zoo).folder
    row_of = {name: row for row, name in enumerate(crystals.ids.tolist())} | {"twin": 0}
    for kind, ours in tables(plain).items():
        found = tables(folder)[kind]
        assert found.select(ours.column_names).schema == ours.schema
        assert repr(found.select(ours.column_names).to_pylist()) == repr(ours.to_pylist())  # NaN is equal to NaN
        ids = found["id"].to_pylist()
        for place, name in enumerate(every):
            rows = [row_of[id] for id in ids]
            values = [1000.0 * place + row if numbers else f"{name} of {row}" for row in rows]
            assert found[f"reported_{name}"].to_pylist() == values
        assert set(found.column_names) == {*ours.column_names, *(f"reported_{name}" for name in every)}
    before, after = ((place / "report.html").read_text() for place in (plain, folder))
    start = before.index("<h2>Candidates"), after.index("<h2>Candidates")
    end = before.index("<h2>", start[0] + 4), after.index("<h2>", start[1] + 4)
    assert after[start[1] : end[1]] == before[start[0] : end[0]]


def as_parquet(folder: Path, structures: Crystals, columns: dict[str, list[Any]]) -> Path:
    content = table.to_table(structures)
    for name, values in columns.items():
        content = content.append_column(name, pa.array(values))
    table.write(content, folder / "old.parquet")
    return folder / "old.parquet"


def as_extxyz(folder: Path, structures: Crystals, columns: dict[str, list[Any]]) -> Path:
    from ase.io import write

    atoms = convert.to_ase(structures)
    for row, one in enumerate(atoms):
        one.info = {name: values[row] for name, values in columns.items() if values[row] is not None} | one.info
    write(folder / "old.extxyz", atoms, columns=["symbols", "positions"])
    return folder / "old.extxyz"


def as_json(folder: Path, structures: Crystals, columns: dict[str, list[Any]]) -> Path:
    found = convert.to_pymatgen(structures)
    rows = [{name: values[row] for name, values in columns.items()} for row in range(len(found))]
    documents = [{**row, "structure": one.as_dict()} for one, row in zip(found, rows, strict=True)]
    (folder / "old.json").write_text(json.dumps(documents))
    return folder / "old.json"


@pytest.mark.parametrize("write_as", [as_parquet, as_extxyz, as_json])
def test_the_candidates_of_a_campaign_are_the_input_of_the_next_one(
    plain: Path,
    zoo: Path,
    folders: dict[str, Path],
    tmp_path: Path,
    write_as: Callable[[Path, Crystals, dict[str, list[Any]]], Path],
) -> None:
    old = table.read(plain / "candidates.parquet")
    structures = Results(plain).crystals(old["id"])
    bare = Crystals(structures.ids, structures.lattice, structures.site_ptr, structures.frac, structures.species_ptr,
                    structures.numbers, structures.occupancy)  # fmt: skip
    fields = {field.name for field in table.CRYSTAL_FIELDS}
    lists = {field.name for field in old.schema if pa.types.is_list(field.type)}  # no columns of an input
    columns = {name: old[name].to_pylist() for name in old.column_names if name not in {*fields, *lists}}
    path = write_as(tmp_path, bare, columns)
    keys = {"models": [str(zoo / "tc-graphs"), str(folders["full"])], "cascade": None, "filters": {}, "rank": {}}
    source = {"kind": "files", "paths": [str(path)]}
    new = table.read(campaign(tmp_path, folders, zoo, **keys, sources=[source]).folder / "candidates.parquet")
    order = new["id"].to_pylist()
    first = old["id"].to_pylist()
    numbers = {f"file/{path.name}" if row == 0 else f"file/{path.name}#{row + 1}": row for row in range(len(first))}
    rows = [numbers[id] if id in numbers else first.index(id) for id in order]
    for name, values in columns.items():
        found = new[name if name in OLD else f"reported_{name}"].to_pylist()
        assert_same(found, [values[row] for row in rows])
    predicted = inputs.predict(path, zoo / "tc-graphs").with_formulas()
    assert set(predicted.column_names) <= set(new.column_names)
    kept = new.select(predicted.column_names).sort_by("id")
    for name, values in predicted.sort_by("id").to_pydict().items():
        exact = not isinstance(values[0], float)
        assert kept[name].to_pylist() == (values if exact else pytest.approx(values, rel=1e-6, abs=1e-6))
    for ending in (".csv", ".json", ".jsonl", ".parquet"):
        output.write(predicted, tmp_path / f"said{ending}")
    assert table.read(tmp_path / "said.parquet").column_names == predicted.column_names


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def assert_same(found: list[Any], wanted: list[Any]) -> None:
    """The same values, where a flag may have become a number and a null NaN or an empty text."""
    for mine, theirs in zip(found, wanted, strict=True):
        if theirs is None or is_nan(theirs):
            assert mine in (None, "") or is_nan(mine)
        elif isinstance(theirs, float):
            assert mine == pytest.approx(theirs, rel=1e-7)
        else:
            assert mine == theirs


def test_a_functional_without_a_number_beside_it_is_a_column_like_any_other(
    model: Path, real: Crystals, tmp_path: Path
) -> None:
    """A `<name>_functional` alone, of a text, of numbers, or of a name that Assay uses itself."""
    odd = {"gap_functional": "PBE", "composition": 1.0, "composition_functional": "PBE", "spacegroup": 4.0}
    odd |= {"spacegroup_functional": "PBE", "score": 1.0, "score_functional": 1.0, "kind": "a", "kind_functional": "b"}
    columns = {name: np.full(9, value) for name, value in odd.items()}
    table.write(table.to_table(real[:9].with_columns(**columns)), tmp_path / "a.parquet")
    source = {"kind": "files", "paths": [str(tmp_path / "a.parquet")]}
    asked = small_campaign.make(write_config(tmp_path, model, sources=[source], identity=True))
    assert small_campaign.run(asked).code is Exit.DONE
    found = table.read(asked.folder / "candidates.parquet")
    assert set(found["reported_spacegroup"].to_pylist()) == {4.0}
    assert set(found["gap_functional"].to_pylist()) == {"PBE"}
    assert not [name for name in found.column_names if name.endswith(("_spread", "_functionals"))]


@pytest.mark.parametrize("write_as", [as_extxyz, as_json])
def test_a_column_is_set_aside_once(
    model: Path, real: Crystals, tmp_path: Path, write_as: Callable[[Path, Crystals, dict[str, list[Any]]], Path]
) -> None:
    """Those that readers set aside, because a crystal has a field of that name, and those that tables do."""
    said: dict[str, list[Any]] = {
        "id": ["a", "b"],
        "nsites": [7, 8],
        "reported_nsites": [3, 4],
        "score": [1.5, 2.5],
        "warnings": ["x", "y"],
        "price": [1.5, None],
        "tc_std": [None, 2.5],
    }
    bare = real[:2]
    path = write_as(tmp_path, Crystals(bare.ids, bare.lattice, bare.site_ptr, bare.frac, bare.species_ptr,
                                       bare.numbers, bare.occupancy), said)  # fmt: skip
    asked = small_campaign.make(write_config(tmp_path, model, sources=[{"kind": "files", "paths": [str(path)]}]))
    assert small_campaign.run(asked).code is Exit.DONE
    found = table.read(asked.folder / "candidates.parquet").sort_by("id")
    moved = {name for name in found.column_names if name.startswith("reported_")}
    assert moved == {"reported_id", "reported_nsites", "reported_reported_nsites", "reported_score", "reported_tc_std"}
    assert found["reported_nsites"].to_pylist() == [7, 8]
    assert found["warnings"].to_pylist() == ["x", "y"]
    assert found["reported_tc_std"].to_pylist() == [None, 2.5]
    assert found["price"].to_pylist() == [1.5, None]  # polars and SQL take NaN for larger than every number
