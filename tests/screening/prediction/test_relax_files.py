"""`assay relax` and `assay.relax`: crystals in, relaxed crystals in a table that every command reads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import bulk

import assay
from assay.screening.prediction import relax as relaxing
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table

EMT = "ase:ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crystals")
    for name, atoms in {"Cu": bulk("Cu", a=3.7), "Al": bulk("Al", a=4.1), "W": bulk("W")}.items():
        atoms.write(folder / f"{name}.vasp", direct=True)
    return folder


def command(*words):
    return subprocess.run([sys.executable, "-m", "assay", "relax", *map(str, words)], capture_output=True, text=True)


def test_the_command_writes_crystals_that_other_commands_read(files, tmp_path):
    output = tmp_path / "new" / "relaxed.parquet"
    done = command(files, "--model", EMT, "--output", output, "--max-bad", 0.5)
    assert done.returncode == 0, done.stderr
    assert "compare them with no others" in done.stdout
    assert "file/W.vasp: prediction_failed: " in done.stderr
    crystals = assay.read(output)
    assert crystals.ids.tolist() == ["file/Al.vasp", "file/Cu.vasp"]
    assert crystals.volume == pytest.approx([15.93, 11.56], abs=0.1)  # EMT: 3.99 and 3.59 Å
    field = pq.read_schema(output).field("energy_per_atom")
    assert field.metadata[b"unit"] == b"eV/atom"
    assert "EMT" in field.metadata[b"meaning"].decode()
    refused = table.quarantine_rows(table.read(output.with_name("relaxed.quarantine.parquet")))
    assert [(row.id, row.stage) for row in refused] == [("file/W.vasp", "relax")]
    again = command(files / "Cu.vasp", "--model", EMT, "--output", output)
    assert again.returncode == 0, again.stderr
    assert len(assay.read(output)) == 1
    assert not output.with_name("relaxed.quarantine.parquet").exists()


def test_too_many_refused_crystals_are_an_error(files):
    done = command(files, "--model", EMT)
    assert done.returncode == Exit.TOO_MANY_BAD
    assert "1 of 3 crystals could not be relaxed" in done.stderr


def test_a_shared_site_comes_with_advice_about_relaxations():
    done = command(Path(__file__).resolve().parents[2] / "data" / "La1.85Sr0.15CuO4.cif", "--model", EMT)
    assert "unsupported: a site is shared or partly empty" in done.stderr
    assert "to relax it, a whole atom on each" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--model", "nothing"], Exit.USAGE, "'nothing' is not known"),
        (["--model", EMT, "--fmax", "0"], Exit.USAGE, "fmax is 0.0, expected above 0"),
        (["--model", EMT, "--output", "relaxed.cif"], Exit.USAGE, ".parquet"),
    ],
)
def test_a_wrong_command_line_is_one_line(files, words, code, said):
    done = command(files, *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_of_no_known_kind_ends_as_in_other_commands(tmp_path):
    (tmp_path / "odd.foo").write_text("odd")
    done = command(tmp_path / "odd.foo", "--model", EMT)
    assert done.returncode == Exit.CONFIG
    assert "is of no known kind" in done.stderr


def test_a_foreign_file_is_not_replaced(tmp_path):
    foreign = tmp_path / "mine.parquet"
    foreign.write_bytes(b"mine")
    with pytest.raises(Failure, match="choose another") as found:
        relaxing.check(foreign)
    assert found.value.code is Exit.CONFIG
    assert foreign.read_bytes() == b"mine"


def test_what_is_read_is_not_replaced(tmp_path):
    bulk("Cu", a=3.7).write(tmp_path / "cu.vasp", direct=True)
    output = tmp_path / "relaxed.parquet"
    assert command(tmp_path, "--model", EMT, "--output", output).returncode == 0
    before = output.read_bytes()
    for given in (output, tmp_path):
        done = command(given, "--model", EMT, "--output", output)
        assert done.returncode == Exit.CONFIG
        assert "relaxed.parquet is one of the files to read; choose another --output" in done.stderr
    assert output.read_bytes() == before
    assert command(tmp_path / "cu.vasp", "--model", EMT, "--output", output).returncode == 0


def test_the_space_group_is_kept_on_request(tmp_path):
    atoms = bulk("Cu", "bcc", a=2.8, cubic=True)
    atoms.set_cell(atoms.cell[:] + np.outer([0.002, 0.001, 0], [1, 0, 0]), scale_atoms=True)
    atoms.write(tmp_path / "bcc.vasp", direct=True)
    output = tmp_path / "relaxed.parquet"
    done = command(tmp_path / "bcc.vasp", "--model", EMT, "--symmetry", "keep", "--output", output)
    assert done.returncode == 0, done.stderr
    metric = assay.read(output).lattice[0] @ assay.read(output).lattice[0].T
    assert metric == pytest.approx(metric[0, 0] * np.eye(3), abs=1e-9)
    done = command(tmp_path / "bcc.vasp", "--model", EMT, "--symmetry", "keep", "--symprec", 0)
    assert done.returncode == Exit.USAGE
    assert "symprec is 0.0, expected above 0" in done.stderr
    done = command(tmp_path / "bcc.vasp", "--model", EMT, "--symprec", 0.1)
    assert done.returncode == Exit.USAGE
    assert "--symprec is for --symmetry keep; give both" in done.stderr


def test_columns_of_the_input_stay_beside_ours():
    crystals = assay.from_ase([bulk("Cu", a=3.7)], ["Cu"]).with_columns(steps=[7], note=["seen"])
    found = assay.relax(crystals, EMT, fmax=0.01)
    assert found.crystals.columns["reported_steps"].tolist() == [7]
    assert found.crystals.columns["note"].tolist() == ["seen"]
    assert found.crystals.columns["steps"][0] > 1
    assert found.to_arrow().num_rows == len(found) == 1
    assert json.dumps(list(relaxing.lines(found)))
