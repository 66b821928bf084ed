"""One entry at a time: what becomes a crystal, and why the others do not."""

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.databases.optimade_entries import STRUCTURE_FIELDS, entries_to_crystals
from assay.sources.databases.providers import PROVIDERS, Provider, ReportedProperty
from assay.sources.quarantine import Quarantined, Reason
from tests.servers import Entry, entries_from_crystals, materials_project


def cell(**changes: Any) -> Entry:
    """CsCl as an entry, with attributes replaced, or removed where the value is `...`."""
    attributes: dict[str, Any] = {
        "lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
        "cartesian_site_positions": [[0, 0, 0], [2.0, 2.0, 2.0]],
        "species": [
            {"name": "A", "chemical_symbols": ["Cs"], "concentration": [1.0]},
            {"name": "Ti", "chemical_symbols": ["Cl"], "concentration": [1]},
        ],
        "species_at_sites": ["A", "Ti"],
        "nsites": 2,
        "dimension_types": [1, 1, 1],
        "structure_features": [],
    }
    attributes.update(changes)
    return {"id": "x", "type": "structures", "attributes": {k: v for k, v in attributes.items() if v is not ...}}


def species(symbols: list[Any], amounts: list[Any]) -> list[dict[str, Any]]:
    return [
        {"name": "A", "chemical_symbols": symbols, "concentration": amounts},
        {"name": "Ti", "chemical_symbols": ["Cl"], "concentration": [1]},
    ]


def _attached(counts: Any) -> list[dict[str, Any]]:
    first, second = species(["Cs"], [1])
    return [{**first, "attached": ["H"], "nattached": counts}, second]


def convert(entry: Any, provider: Provider | str = "p") -> tuple[Crystals, list[Quarantined]]:
    crystals, quarantined = entries_to_crystals([entry], provider, "here")
    assert len(crystals) + len(quarantined) == 1
    return crystals, quarantined


def test_a_species_name_is_not_an_element() -> None:
    crystals, _ = convert(cell())
    assert crystals.numbers.tolist() == [55, 17]
    assert crystals.frac.tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]
    assert crystals.ids.tolist() == ["p/x"]


@pytest.mark.parametrize("missing", ["nsites", "dimension_types", "structure_features"])
def test_fields_that_may_be_absent(missing: str) -> None:
    assert len(convert(cell(**{missing: ...}))[0]) == 1


def test_disorder_and_vacancies() -> None:
    crystals, _ = convert(
        cell(species=species(["Cs", "K", "vacancy"], [0.5, 0.25, 0.25]), structure_features=["disorder"])
    )
    assert crystals.numbers.tolist() == [55, 19, 17]
    assert crystals.occupancy.tolist() == [0.5, 0.25, 1.0]
    assert crystals.site_occupancy.tolist() == [0.75, 1.0]


@pytest.mark.parametrize("amounts", [[0.167] * 6, [0.334] * 3, [0.26, 0.25, 0.25, 0.26], [0.3334, 0.3334, 0.3333]])
def test_rounded_concentrations_are_scaled_and_the_row_says_so(amounts: list[float]) -> None:
    symbols = ["Ti", "Zr", "Hf", "Nb", "Ta", "V"][: len(amounts)]
    crystals, _ = convert(cell(species=species(symbols, amounts)))
    exact = np.array(amounts) / sum(amounts)
    assert crystals.occupancy.tolist() == pytest.approx([*exact, 1.0], abs=1e-6)
    said = f"occupancies of a site add up to {round(sum(amounts), 5):g} and were scaled to 1"
    assert crystals.columns["warnings"].tolist() == [said]


@pytest.mark.parametrize("other", ["Fe", "X", "Qq"])
def test_a_species_of_which_there_is_none_is_left_out(other: str) -> None:
    crystals, _ = convert(cell(species=species(["Mg", other], [1.0, 0.0])))
    assert crystals.numbers.tolist() == [12, 17]
    assert "warnings" not in crystals.columns


def test_a_site_where_nothing_is_is_vacant_and_the_row_says_so() -> None:
    crystals, _ = convert(cell(species=species(["Cs", "K"], [0, 0.0])))
    assert crystals.numbers.tolist() == [17]
    assert crystals.columns["warnings"].tolist() == ["a site with occupancy 0 was left out"]
    stated, _ = convert(cell(species=species(["vacancy"], [1.0])))
    assert stated.numbers.tolist() == [17]
    assert "warnings" not in stated.columns


@pytest.mark.parametrize(
    ("mass", "said"),
    [
        ([2.014], "deuterium was read as hydrogen"),
        ([3.016], "tritium was read as hydrogen"),
        (2.014, "deuterium was read as hydrogen"),  # as in OPTIMADE 1.0
        ([1.008], ""),
        (1.008, ""),
        (None, ""),
    ],
)
def test_heavy_hydrogen_is_hydrogen_and_the_row_says_so(mass: Any, said: str) -> None:
    first, second = species(["H"], [1])
    spare = {"name": "spare", "chemical_symbols": ["H"], "concentration": [1], "mass": [3.016]}
    crystals, _ = convert(cell(species=[{**first, "mass": mass}, second, spare]))
    assert crystals.numbers.tolist() == [1, 17]
    assert crystals.columns.get("warnings", np.array([""])).tolist() == [said]


@pytest.mark.parametrize("mass", ["2.014", math.inf, [None], [math.inf], [[2]], [2.0, 3.0], {}, [True], [10**400]])
def test_a_mass_of_another_shape_does_no_harm(mass: Any) -> None:
    first, second = species(["H"], [1])
    assert len(convert(cell(species=[{**first, "mass": mass}, second]))[0]) == 1


def test_no_attached_atoms_are_none() -> None:
    assert len(convert(cell(species=_attached([0])))[0]) == 1


def test_an_element_named_twice_on_a_site_is_one_species() -> None:
    crystals, _ = convert(cell(species=species(["Fe", "Fe"], [0.5, 0.25])))
    assert crystals.numbers.tolist() == [26, 17]
    assert crystals.occupancy.tolist() == [0.75, 1.0]


def test_fractional_positions_are_accepted() -> None:
    crystals, _ = convert(cell(cartesian_site_positions=..., fractional_site_positions=[[0, 0, 0], [0.25, 1.25, -0.5]]))
    assert crystals.frac[1].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, Reason.MALFORMED),
        ({"id": "x", "type": "structures"}, Reason.MALFORMED),
        ({**cell(), "id": None}, Reason.MALFORMED),
        ({**cell(), "id": True}, Reason.MALFORMED),
        ({**cell(), "type": "references"}, Reason.UNSUPPORTED),
        (cell(lattice_vectors=None), Reason.MALFORMED),
        (cell(lattice_vectors=[[4, 0, 0], [0, 4, 0]]), Reason.MALFORMED),
        (cell(lattice_vectors=[[4, 0, 0], [0, 4, 0], [None] * 3]), Reason.NOT_PERIODIC),
        (cell(lattice_vectors=[[4, 0, 0], [0, 4, 0], [0, 4, 0]]), Reason.BAD_LATTICE),
        (cell(lattice_vectors=[[4, 0, 0], [0, 4, 0], [0, 0, math.inf]]), Reason.NON_FINITE),
        (cell(cartesian_site_positions=[[0, 0, 0]]), Reason.MALFORMED),
        (cell(cartesian_site_positions=[[0, 0, 0], "abc"]), Reason.MALFORMED),
        (cell(cartesian_site_positions=[[0, 0, 0], [math.nan] * 3]), Reason.NON_FINITE),
        (cell(cartesian_site_positions=[[0, 0, 0], [None, 0, 0]]), Reason.NON_FINITE),
        (cell(dimension_types=[1, 1, 0]), Reason.NOT_PERIODIC),
        (cell(dimension_types=..., nperiodic_dimensions=2), Reason.NOT_PERIODIC),
        (cell(dimension_types=[1, 1, 1], nperiodic_dimensions=2), Reason.NOT_PERIODIC),
        (cell(site_coordinate_span="asymmetric_unit"), Reason.UNSUPPORTED),
        (cell(structure_features=["disorder", "implicit_atoms"]), Reason.UNSUPPORTED),
        (cell(assemblies=[{"sites_in_groups": [[0], [1]]}]), Reason.UNSUPPORTED),
        (cell(species=...), Reason.MALFORMED),
        (cell(species_at_sites=...), Reason.MALFORMED),
        (cell(species_at_sites=["A", "B"]), Reason.UNKNOWN_SPECIES),
        (cell(species_at_sites=["A", []]), Reason.UNKNOWN_SPECIES),
        (cell(species_at_sites=["A"]), Reason.MALFORMED),
        (cell(nsites=3), Reason.MALFORMED),
        (cell(species=species(["X"], [1])), Reason.UNKNOWN_SPECIES),
        (cell(species=species(["Qq"], [1])), Reason.UNKNOWN_SPECIES),
        (cell(species=species([["Cs"]], [1])), Reason.UNKNOWN_SPECIES),
        (cell(species=species(["Cs"], [])), Reason.MALFORMED),
        (cell(species=species(["Cs"], ["1"])), Reason.MALFORMED),
        (cell(species=species(["Cs", "K"], [0.8, 0.8])), Reason.BAD_OCCUPANCY),
        (cell(species=[{**row, "concentration": [0.0]} for row in species(["Cs"], [1])]), Reason.BAD_OCCUPANCY),
        (cell(species=species(["Cs", "K"], [1.0, -0.1])), Reason.BAD_OCCUPANCY),
        (cell(species=species(["Cs", "K"], [0.51, 0.5101])), Reason.BAD_OCCUPANCY),
        (cell(species=species(["Cs", "vacancy"], [1.0, 0.5])), Reason.BAD_OCCUPANCY),
        (cell(species=species(["Cs", "vacancy"], [0.5, -0.5])), Reason.BAD_OCCUPANCY),
        (cell(species=species(["Cs", "vacancy"], [0.5, math.nan])), Reason.BAD_OCCUPANCY),
        (cell(species=species(["Cs", "vacancy"], [0.5, "0.5"])), Reason.MALFORMED),
        (cell(species=species(["Cs"], [10**400])), Reason.NON_FINITE),
        (cell(species=species(["Cs"], [math.nan])), Reason.NON_FINITE),
        (cell(species=_attached([1])), Reason.UNSUPPORTED),
        (cell(species=_attached(None)), Reason.UNSUPPORTED),
        (cell(species=[*species(["Cs"], [1]), *species(["K"], [1])]), Reason.MALFORMED),
    ],
)
def test_every_refusal_has_its_reason(entry: Any, reason: Reason) -> None:
    _, quarantined = convert(entry)
    assert [row.reason for row in quarantined] == [reason]
    assert quarantined[0].origin == "here"
    assert quarantined[0].message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            cell(cartesian_site_positions=[], species_at_sites=[], species=[], nsites=0),
            "coordinates are empty, at least 1 site is needed",
        ),
        (cell(cartesian_site_positions=[["0", "0", "0"]] * 2), "coordinates must hold numbers, not texts"),
        (
            cell(cartesian_site_positions=[[0, 0, 0], None]),
            "coordinates must be rows of 3 numbers, and not all rows are",
        ),
        (
            cell(lattice_vectors=[[4, 0, 0], [0, 4], [0, 0, 4]]),
            "lattice must be rows of 3 numbers, and not all rows are",
        ),
        (cell(species_at_sites=["A", ["Ti"]]), "species_at_sites must hold texts, names of species"),
    ],
)
def test_a_refusal_speaks_of_the_entry_and_not_of_a_library(entry: Entry, message: str) -> None:
    assert [row.message for row in convert(entry)[1]] == [message]


def test_every_field_that_is_judged_is_asked_for() -> None:
    assert {"assemblies", "structure_features", "dimension_types", "nperiodic_dimensions"} <= set(STRUCTURE_FIELDS)


def test_an_unused_odd_species_does_no_harm() -> None:
    table = [*species(["Cs"], [1]), {"name": "spare", "chemical_symbols": ["X"], "concentration": [1]}]
    assert len(convert(cell(species=table))[0]) == 1


def test_data_behind_a_link_is_partial_not_malformed() -> None:
    entry = cell(cartesian_site_positions=None)
    entry["meta"] = {"partial_data_links": {"cartesian_site_positions": [{"link": "https://x"}]}}
    assert convert(entry)[1][0].reason is Reason.PARTIAL_DATA


def test_a_cell_above_the_limit_is_too_large() -> None:
    crystals, quarantined = entries_to_crystals([cell()], "p", "here", max_sites=1)
    assert (len(crystals), quarantined[0].reason) == (0, Reason.TOO_LARGE)


def test_reported_properties_keep_their_path_and_lose_sentinels() -> None:
    stability = {"gga_gga+u": {"formation_energy_per_atom": -1.5, "energy_above_hull": 0.02}, "r2scan": {}}
    crystals, _ = convert(cell(_mp_stability=stability), PROVIDERS["mp"])
    assert crystals.columns["formation_energy_per_atom"].tolist() == [-1.5]
    assert crystals.columns["energy_above_hull"].tolist() == [0.02]
    assert crystals.columns["energy_above_hull_functional"].tolist() == ["PBE(+U), MP2020"]
    crystals, _ = convert(cell(_mp_stability={"r2scan": {"energy_above_hull": 0.02}}), PROVIDERS["mp"])
    assert np.isnan(crystals.columns["energy_above_hull"]).all()  # another functional is another quantity
    assert crystals.columns["energy_above_hull_functional"].tolist() == [""]
    crystals, _ = convert(cell(_jarvis_ehull=-99999, _jarvis_optb88vdw_bandgap="0.5"), PROVIDERS["jarvis"])
    assert np.isnan(crystals.columns["energy_above_hull"]).all()
    assert np.isnan(crystals.columns["band_gap"]).all()


def test_pages_have_the_same_columns_whatever_they_hold() -> None:
    provider = Provider(
        "p", "p", "", "unknown", properties=(ReportedProperty("band_gap", (("_p_gap",),), "eV", "PBE"),)
    )
    full, _ = entries_to_crystals([cell(_p_gap=1, _p_z=2)], provider, "here", extra=("_p_z",))
    bare, _ = entries_to_crystals([cell()], provider, "here", extra=("_p_z",))
    none, _ = entries_to_crystals([], provider, "here", extra=("_p_z",))
    assert list(full.columns) == list(bare.columns) == list(none.columns)
    schemas = [table.to_table(batch).schema for batch in (full, bare, none)]
    assert schemas[0] == schemas[1] == schemas[2]
    every, _ = entries_to_crystals([cell(_p_z=2, _p_text="a", _p_flag=True)], "p", "here", extra=None)
    assert every.columns["_p_z"].tolist() == [2.0]
    assert not {"_p_text", "_p_flag"} & every.columns.keys()


def test_mutants_are_never_an_exception(data: Path) -> None:
    """1,500 entries with one value replaced by rubbish: each becomes a crystal or a record."""
    entries: list[Entry] = entries_from_crystals(materials_project(data, 200))
    generator = np.random.default_rng(0)
    rubbish: list[Any] = [
        None,
        True,
        -1,
        10**400,
        1e308,
        math.nan,
        "",
        "Nb",
        [],
        {},
        [None],
        [[]],
        {"name": 3},
        ["x"] * 3,
        [[1, 2]],
    ]
    mutants = []
    for _ in range(1500):
        entry = copy.deepcopy(entries[generator.integers(200)])
        entry["meta"] = rubbish[generator.integers(len(rubbish))]
        holder: Any = entry["attributes"]
        key: Any = list(holder)[generator.integers(len(holder))]
        while isinstance(holder[key], list | dict) and holder[key] and generator.random() < 0.6:
            holder = holder[key]
            key = list(holder)[generator.integers(len(holder))] if isinstance(holder, dict) else 0
        holder[key] = rubbish[generator.integers(len(rubbish))]
        mutants.append(entry)
    crystals, quarantined = entries_to_crystals(mutants, "p", "here")
    assert len(crystals) + len(quarantined) == 1500
    assert len(quarantined) > 300
    assert len(Counter(row.reason for row in quarantined)) >= 4
