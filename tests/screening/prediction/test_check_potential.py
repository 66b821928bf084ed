"""`assay check-potential`: a table, a report in JSON, and an exit code for a potential that fails."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk

from assay.models.potentials import check, potential
from assay.screening.prediction import check_potential as checks
from assay.screening.settings.exits import Exit, Failure

EMT = "ase:ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crystals")
    for name, atoms in {"Cu": bulk("Cu"), "Al": bulk("Al"), "W": bulk("W")}.items():
        atoms.write(folder / f"{name}.vasp", direct=True)
    return folder


@pytest.mark.parametrize(("steps", "timestep", "lasted"), [(10, 1.0, "10 fs"), (19, 5.0, "95 fs"), (100, 1.0, "")])
def test_runs_of_a_part_of_a_swing_are_said_to_say_little(steps, timestep, lasted):
    said = checks.too_short(check.Settings(steps, timestep))
    assert said.startswith(f"each run of dynamics lasts {lasted}, and an atom may take 100 fs") if lasted else not said


def test_the_command_prints_a_table_and_writes_every_value(assay, files, tmp_path):
    output = tmp_path / "new" / "check.json"
    words = ["--crystals", files / "Cu.vasp", "--crystals", files / "Al.vasp", "--steps", 20, "--atoms", 4]
    done = assay("check-potential", EMT, *words, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "each run of dynamics lasts 20 fs" in done.stderr
    table = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(table) == [
        *("check", "relaxation", "forces", "stress", "equation_of_state", "bulk_modulus"),
        *("nvt_300", "nve_drift", "nvt_1000", "dimers"),
    ]
    assert all("0 of 2" in line for name, line in table.items() if name not in ("check", "dimers"))
    report = json.loads(output.read_text())
    assert report["checked"] == {
        "potential": EMT,
        "scale": "ase.calculators.emt:EMT, that of the calculator",
        "steps": 20,
        "timestep": 1.0,
        "atoms": 4,
        "seed": 0,
    }
    assert [row["id"] for row in report["crystals"]] == ["file/Cu.vasp", "file/Al.vasp"]
    assert report["crystals"][1]["bulk_modulus"] == pytest.approx(39.6, abs=0.6)  # of EMT
    assert len(report["crystals"][0]["energy_per_atom"]) == len(report["volumes"])
    assert [row["pair"] for row in report["dimers"]] == ["Al-Al", "Cu-Cu"]
    again = assay("check-potential", EMT, *words, "--output", output)
    assert again.stdout == done.stdout
    assert json.loads(output.read_text()) == report


def test_a_potential_that_fails_ends_with_65_and_the_reasons(assay, files, tmp_path):
    output = tmp_path / "check.json"
    words = ["--crystals", files, "--steps", 10, "--atoms", 1, "--output", output]
    done = assay("check-potential", EMT, *words)
    assert done.returncode == Exit.TOO_MANY_BAD
    assert "file/W.vasp W: relaxation: prediction_failed: " in done.stderr
    assert "relaxation of 1 in 3" in done.stderr
    row = next(row for row in json.loads(output.read_text())["crystals"] if row["id"] == "file/W.vasp")
    assert row["forces"] is None
    assert "No EMT-potential for W" in row["failed"]["relaxation"]
    assert assay("check-potential", EMT, *words, "--max-bad", 0.5).returncode == 0


def test_hypothetical_crystals_are_of_elements_that_it_answers_for():
    emt = potential.load(EMT)
    found = checks.bundled(emt, 0)
    assert len(found) == checks.ENOUGH >= 20
    assert found.is_ordered.all()
    assert np.isfinite(emt.evaluate(found).energy).all()
    assert len(set(found.columns["prototype"].tolist())) > 5
    assert checks.bundled(emt, 0) == found
    assert checks.bundled(emt, 1) != found


def test_a_potential_of_nothing_asks_for_crystals():
    emt = potential.load(EMT)
    noble = SimpleNamespace(name="noble", elements=frozenset({2, 10}), evaluate=emt.evaluate)
    with pytest.raises(ValueError, match="noble answers for no element, .* give --crystals"):
        checks.bundled(noble, 0)


def test_a_share_of_failures_is_accepted():
    one = check.Check("forces", "eV/Å", "", np.array([0.1, 0.0, 0.0, np.nan]), {0: "0.1"}, 0.05)
    found = SimpleNamespace(checks=[one], pairs=check.Check("dimers", "", "", np.ones(2), {}))
    checks.judge(found, "emt", 0.34)
    with pytest.raises(Failure, match="emt failed more than --max-bad 0.3: forces of 1 in 3"):
        checks.judge(found, "emt", 0.3)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], Exit.USAGE, "'nothing' is not known"),
        ([EMT, "--steps", 2], Exit.USAGE, "steps is 2, expected at least 10"),
        ([EMT, "--output", "check.txt"], Exit.USAGE, "written as .json"),
        ([EMT, "--crystals", "not-there.cif"], Exit.CONFIG, "not-there.cif"),
    ],
)
def test_a_wrong_command_line_is_one_line(assay, words, code, said):
    done = assay("check-potential", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["mine", "[]", '{"checked": 3}', "{}"])
def test_a_foreign_file_is_not_replaced(tmp_path, content):
    foreign = tmp_path / "mine.json"
    foreign.write_text(content)
    with pytest.raises(Failure, match="choose another") as found:
        checks.check_output(foreign)
    assert found.value.code is Exit.CONFIG
    assert foreign.read_text() == content
