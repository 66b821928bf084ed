"""The command line: quick help, and every failure one line with a documented exit code."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.screening.folder import lock
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.conftest import ROOT, Command, last_line

CIFS = ROOT / "tests" / "data"


def test_help_comes_in_three_tenths_of_a_second() -> None:
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "assay", "--help"], capture_output=True, text=True, check=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for command in ("run", "pull", "train", "predict", "rank", "report", "status", "verify", "unlock", "errors"):
        assert command in done.stdout
    assert min(times) < 0.3  # processor time: the machine may be busy


def test_help_imports_nothing_heavy() -> None:
    heavy = (
        "torch",
        "ray",
        "polars",
        "pyarrow",
        "pymatgen",
        "numba",
        "pydantic",
        "optimade",
        "httpx2",
        "numpy",
        "yaml",
    )
    code = f"""
import contextlib, io, sys
from assay.screening.commands.cli import app
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    app(["--help"])
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "nowhere.yaml"], 78, "nowhere.yaml not found"),
        (["run", "{config}", "--set", "rank.buy=mean"], 78, "unknown key 'rank.buy'; did you mean 'by'?"),
        (["run", "{config}", "--set", "models=[no/such]"], 78, "model folder no/such not found"),
        (["run", "{config}", "--set", "rank.property=x"], 78, "rank.property: 'x' is not among the properties"),
        (["run", "{config}", "--set", "filters.formula=[mgb2]"], 78, "'mgb2' is not a formula"),
        (["run", "{config}", "--set", "sources.0.paths=[gone.cif]"], 78, "gone.cif does not exist"),
        (["run", "{config}", "--set", "nonsense"], 2, "is not of the form a.b=c"),
        (["run", "{config}", "--output", "{config}"], 78, "is a file, expected a folder"),
        (["rank", "."], 78, "no campaign folder"),
        (["status", "."], 78, "no campaign folder"),
        (["verify", "."], 78, "no campaign folder"),
        (["errors", "."], 78, "no campaign folder"),
        (["status", "gone"], 78, "gone does not exist"),
        (["unlock", "."], 2, "is not locked"),
        (["predict", "gone.cif", "--model", "{model}"], 78, "gone.cif"),
        (["predict", "{config}", "--model", "{model}"], 78, "test.yaml"),
        (["predict", "x.cif", "--model", "no/such"], 78, "model folder no/such not found"),
        (["predict", "/dev/null", "--model", "{model}"], 78, "/dev/null is a device, expected a regular file"),
        (["predict", ".", "--model", "{model}"], 78, "nothing in . can be read; ignored: "),
        (["predict", "x.cif", "--model", "."], 78, "ensemble.json"),
        (["predict", "x.cif", "--model", "tc-fest"], 78, "did you mean the bundled 'tc-fast'?"),
        (
            ["run", "quikstart"],
            78,
            "did you mean the bundled 'quickstart'? (bundled are quickstart, stable-insulators, ",
        ),
        (["train", "train-tk", "--output", "t"], 78, "recipe train-tk not found; did you mean the bundled 'train-tc'?"),
        (["study", "study-tk", "--output", "t"], 78, "did you mean the bundled 'study-tc'?"),
        (["tune", "tune-tk", "--output", "t"], 78, "did you mean the bundled 'tune-tc'?"),
        (["train", "nowhere.yaml", "--output", "t"], 78, "nowhere.yaml not found"),
    ],
)
def test_one_clear_line_and_the_documented_code(
    assay: Command, write_config: Callable[..., Path], model: Path, real_file: Path, arguments: list[str], code: int,
    told: str,
) -> None:  # fmt: skip
    config = write_config({"kind": "files", "paths": [str(real_file)]})
    done = assay(*(text.format(config=config, model=model) for text in arguments))
    assert done.returncode == code, done.stderr
    assert told in last_line(done.stderr)
    assert "Traceback" not in done.stderr


def test_a_usage_error_is_2(assay: Command) -> None:
    assert assay("run").returncode == 2
    assert assay("fly").returncode == 2


def test_a_damaged_model_is_refused(assay: Command, model: Path, real_file: Path) -> None:
    copy = assay.folder / "model"
    shutil.copytree(model, copy)
    weights = next(copy.glob("*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    done = assay("predict", real_file, "--model", copy)
    assert done.returncode == 78
    assert "sha256" in last_line(done.stderr)
    assert "weights.safetensors" in last_line(done.stderr)


def test_predict_tells_disorder_and_interval(assay: Command, model: Path) -> None:
    done = assay("predict", CIFS / "La1.85Sr0.15CuO4.cif", CIFS / "MgB2.cif", "--model", model)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    assert "La1.85" in first
    assert "disordered: La/Sr 0.925/0.075 on" in first
    assert "±" in second
    assert "[" in second
    assert "disordered" not in second


def test_predict_and_explain_tell_the_warnings_of_a_row(assay: Command, model: Path, real: Crystals) -> None:
    odd = real[:2].with_columns(warnings=np.array(["", "taken with a\x1b[2J pinch of salt"]))
    table.write(table.to_table(odd), assay.folder / "odd.parquet")
    done = assay("predict", "odd.parquet", "--model", model, "--output", "p.parquet")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    assert "warning" not in first
    assert "warning: taken with a\\u001b[2J pinch of salt" in second  # it cannot clear the screen
    written = table.read(assay.folder / "p.parquet")
    assert written.column_names[-1] == "warnings"
    assert written["warnings"].to_pylist() == ["", "taken with a\x1b[2J pinch of salt"]
    done = assay("explain", "odd.parquet", "--model", model, "--output", "why")
    assert done.stdout.count("  warning: taken with a\\u001b[2J pinch of salt\n") == 1, done.stderr


def test_predict_keeps_what_it_can_read(assay: Command, model: Path) -> None:
    (assay.folder / "nan.cif").write_text((CIFS / "MgB2.cif").read_text().replace("0.3333", "nan"))
    done = assay(
        "predict", CIFS / "MgB2.cif", CIFS / "broken.cif", "nan.cif", "--model", model, "--output", "p.parquet"
    )
    assert done.returncode == 65
    assert table.read(assay.folder / "p.parquet").num_rows == 1
    bad = table.quarantine_rows(table.read(assay.folder / "p.quarantine.parquet"))
    assert [row.id for row in bad] == ["file/broken.cif", "file/nan.cif"]
    assert "2 refused crystals, with the reasons, in p.quarantine.parquet" in done.stderr.splitlines()
    lines = [line for line in done.stderr.splitlines() if line.startswith("file/")]
    assert len(lines) == 2
    assert all("; " in line for line in lines)


def test_predict_a_table_of_the_data_packs(assay: Command, model: Path, data: Path) -> None:
    import pyarrow.parquet as pq

    pack = pq.read_table(data / "3dsc_mp" / "3dsc_mp.parquet").slice(0, 40)
    pq.write_table(pack, assay.folder / "pack.parquet")
    done = assay("predict", "pack.parquet", "--model", model, "--output", "deep/p.parquet")
    assert done.returncode == 0, done.stderr
    written = table.read(assay.folder / "deep" / "p.parquet")
    assert set(written["id"].to_pylist()) <= set(pack["id"].to_pylist())
    name = written.column_names[2].removesuffix("_mean")
    parts = [f"{name}_{part}" for part in ("mean", "std", "lo", "hi", "member_0", "member_1")]
    assert written.column_names[:8] == ["id", "formula", *parts]
    low, mean, high = (written[f"{name}_{part}"].to_numpy() for part in ("lo", "mean", "hi"))
    assert (low <= mean).all()
    assert (mean <= high).all()


def test_predict_says_what_lies_outside_coverage(assay: Command, model: Path, real: Crystals) -> None:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources.elements import NUMBERS, SYMBOLS

    unseen = [z for z in range(1, 90) if SYMBOLS[z] not in Ensemble.load(model).elements]
    if not unseen:
        pytest.skip("this ensemble has seen every element")
    one = real[:1]
    numbers = one.numbers.copy()
    numbers[0] = unseen[0]
    strange = Crystals(one.ids, one.lattice, one.site_ptr, one.frac, one.species_ptr, numbers, one.occupancy)
    table.write(table.to_table(strange), assay.folder / "x.parquet")
    done = assay("predict", "x.parquet", "--model", model)
    assert f"outside coverage: no training crystal held {SYMBOLS[unseen[0]]}" in done.stdout
    assert NUMBERS[SYMBOLS[unseen[0]]] == unseen[0]


def test_two_models_on_one_property_are_refused(
    assay: Command, write_config: Callable[..., Path], model: Path, real_file: Path
) -> None:
    config = write_config({"kind": "files", "paths": [str(real_file)]}, models=[str(model), str(model)])
    done = assay("run", config)
    assert done.returncode == 78
    assert "both predict" in last_line(done.stderr)


def test_a_filter_that_leaves_nothing_still_ends_well(
    assay: Command, write_config: Callable[..., Path], real_file: Path
) -> None:
    config = write_config({"kind": "files", "paths": [str(real_file)]}, filters={"nsites": {"min": 9999.0}})
    done = assay("run", config, "--output", "out")
    assert done.returncode == 0, done.stderr
    assert table.read(assay.folder / "out" / "candidates.parquet").num_rows == 0
    assert "no crystal was ranked" in (assay.folder / "out" / "report.html").read_text()


@pytest.mark.parametrize("column", ["label", "warnings"])
def test_columns_that_are_not_numbers_cannot_be_ranged(
    assay: Command, write_config: Callable[..., Path], tmp_path: Path, real: Crystals, column: str
) -> None:
    named = real[:3].with_columns(label=np.array(["a", "b", "c"]))  # no row has a warning
    table.write(table.to_table(named), tmp_path / "n.parquet")
    config = write_config({"kind": "files", "paths": ["n.parquet"]}, filters={"reported": {column: {"min": 0.0}}})
    done = assay("run", config, "--output", "out")
    assert done.returncode == 78
    assert f"reported.{column}" in last_line(done.stderr)


@pytest.fixture
def campaign(real: Crystals, model: Path, assay: Command) -> Path:
    """The folder of a small finished campaign."""
    return small_campaign.finish(assay.folder, real, model).folder


def test_a_campaign_is_looked_at_checked_and_freed(assay: Command, campaign: Path) -> None:
    looked = assay("status", campaign)
    assert (looked.returncode, looked.stderr) == (0, "")
    assert looked.stdout.startswith("ranked ")
    assert json.loads(assay("status", campaign, "--json").stdout)["state"] == "ranked"
    told = assay("errors", campaign, "--by", "source")
    assert (told.returncode, told.stdout.split()[:2]) == (0, ["1", "b"])
    assert json.loads(assay("errors", campaign, "--json").stdout)["groups"][0]["reason"] == "malformed"
    assert assay("errors", campaign, "--by", "colour").returncode == 2
    intact = assay("verify", campaign)
    assert (intact.returncode, intact.stderr) == (0, "")
    assert intact.stdout.startswith("intact: ")
    part = min((campaign / "parts").iterdir())
    small_campaign.flip(part)
    small_campaign.flip(campaign / "report.html")
    damaged = assay("verify", campaign)
    assert damaged.returncode == 74
    assert [path in damaged.stdout for path in (str(part), "report.html")] == [True, True]
    assert "2 problems" in last_line(damaged.stderr)
    assert assay("status", campaign).returncode == 0
    small_campaign.flip(campaign / "log" / "00000001.json", 30)
    assert assay("status", campaign).returncode == 74


def test_only_a_dead_lock_is_removed_unless_forced(assay: Command, campaign: Path) -> None:
    with lock.held(campaign):
        refused = assay("unlock", campaign)
        assert refused.returncode == 73
        assert f"assay unlock {campaign} --force" in last_line(refused.stderr)
        mine = json.loads((campaign / "LOCK").read_text())
    (campaign / "LOCK").write_text(json.dumps(mine | {"process_start": "1"}))
    freed = assay("unlock", campaign)
    assert freed.returncode == 0
    assert f"{campaign} is free; it was held by pid {os.getpid()}" in freed.stdout
    with lock.held(campaign):
        assert assay("unlock", campaign, "--force").returncode == 0
        assert not (campaign / "LOCK").exists()
