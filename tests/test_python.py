"""The Python API: every example of docs/python.md and of the README runs, and what is promised there holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import assay
from assay.screening import python
from assay.screening.settings.exits import Exit, Failure

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
MGB2, CUPRATE = DATA / "MgB2.cif", DATA / "La1.85Sr0.15CuO4.cif"


def examples(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_the_examples_run_in_order(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymatgen")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    found = examples(ROOT / document)
    assert found
    room: dict[str, Any] = {}
    for text in found:
        exec(compile(text, document, "exec"), room)


@pytest.fixture(scope="module")
def ensemble() -> assay.Ensemble:
    return assay.load("tc-fast")


def test_import_is_quick_and_lazy() -> None:
    code = "import sys, assay; dir(assay); print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout.strip() == "[]"
    assert all(hasattr(assay, name) for name in assay.__all__)
    assert assay.__all__ == python.__all__
    with pytest.raises(AttributeError, match="no attribute 'forecast'"):
        _ = assay.forecast  # type: ignore[attr-defined]


def test_torch_sim_that_is_missing_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_sim", None)
    with pytest.raises(ImportError, match=r"torch-sim cannot be imported.*pip install 'assay\[torchsim\]'"):
        assay.torchsim_model("potential")


def test_every_sort_of_input_gives_the_same_prediction(ensemble: assay.Ensemble) -> None:
    crystals = assay.read([MGB2, CUPRATE])
    wanted = assay.predict(crystals, ensemble)
    for what in ([str(MGB2), CUPRATE], assay.to_pymatgen(crystals), assay.to_ase(crystals)):
        found = assay.predict(what, ensemble)
        assert found.to_arrow()["id"].to_pylist() == ["file/MgB2.cif", "file/La1.85Sr0.15CuO4.cif"]
        np.testing.assert_allclose(found.to_polars()["tc_mean"], wanted.to_polars()["tc_mean"], atol=1e-3)
    single = assay.predict(assay.to_ase(crystals)[0], ensemble)
    assert len(single) == 1


def test_the_round_trip_keeps_ids_and_occupancy() -> None:
    crystals = assay.read(CUPRATE)
    for back in (assay.from_pymatgen(assay.to_pymatgen(crystals)), assay.from_ase(assay.to_ase(crystals))):
        assert back.ids.tolist() == crystals.ids.tolist()
        np.testing.assert_allclose(back.composition(), crystals.composition(), atol=1e-4)
    twice = assay.from_ase(assay.to_ase(crystals) * 2)
    assert twice.ids.tolist() == ["memory/0", "memory/1"]
    assert assay.from_ase(assay.to_ase(crystals), ["mine/1"]).ids.tolist() == ["mine/1"]


def test_predictions_print_as_a_table_and_show_in_a_notebook(ensemble: assay.Ensemble) -> None:
    found = assay.predict([MGB2, CUPRATE, DATA / "broken.cif"], ensemble)
    lines = str(found).splitlines()
    assert lines[0].split() == ["id", "formula", "tc", "(K)", "ood"]
    assert re.match(r"file/MgB2.cif +MgB2 +[\d.]+ ± [\d.]+ \[[-\d.]+, [\d.]+\]", lines[1])
    assert lines[-1] == "1 refused, see .refused"
    shown = found._repr_html_()
    assert "<th>tc (K)</th>" in shown
    assert shown.count("<tr>") == 3
    assert [record.id for record in found.refused] == ["file/broken.cif"]


def test_warnings_of_the_reader_come_with_the_predictions(ensemble: assay.Ensemble) -> None:
    crystals = assay.read([MGB2, CUPRATE])
    assert "warnings" not in assay.predict(crystals, ensemble).to_arrow().column_names
    odd = crystals.with_columns(warnings=np.array(["", "odd"]))
    found = assay.predict(odd, ensemble)
    assert found.to_polars()["warnings"].to_list() == ["", "odd"]
    assert str(found).splitlines()[-1] == "1 read with warnings, see the column warnings"
    for other in (np.array([1, 2]), np.array([["a"], ["b"]])):  # a caller may call anything by that name
        assert "warnings" not in assay.predict(crystals.with_columns(warnings=other), ensemble).to_arrow().column_names


def test_a_long_table_is_cut_and_an_empty_one_is_a_table(ensemble: assay.Ensemble) -> None:
    many = assay.predict(assay.to_ase(assay.read(MGB2)) * 25, ensemble)
    assert str(many).splitlines()[-1] == "... and 5 more"
    none = assay.predict([], ensemble)
    assert (len(none), none.to_polars().height, none.refused) == (0, 0, [])


def test_pandas_is_asked_for_where_it_is_missing(ensemble: assay.Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    found = assay.predict(MGB2, ensemble)
    monkeypatch.setattr("assay.screening.prediction.predict.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install pandas"):
        found.to_pandas()


def test_pandas_gets_the_same_columns(ensemble: assay.Ensemble) -> None:
    pytest.importorskip("pandas")
    found = assay.predict(MGB2, ensemble)
    assert list(found.to_pandas().columns) == found.to_arrow().column_names


def test_what_cannot_be_predicted_is_a_clear_error(ensemble: assay.Ensemble) -> None:
    with pytest.raises(TypeError, match=r"cannot predict a builtins.int, expected Crystals, paths"):
        assay.predict([1], ensemble)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="mixture of ase and path"):
        assay.predict([str(MGB2), assay.to_ase(assay.read(MGB2))[0]], ensemble)
    with pytest.raises(FileNotFoundError, match=r"did you mean the bundled 'tc'\?"):
        assay.predict(MGB2, "tcc")
    with pytest.warns(UserWarning, match="1 crystals could not be read, for example file/broken.cif"):
        assert len(assay.read([MGB2, DATA / "broken.cif"])) == 1


def test_a_path_that_exists_wins_over_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tc").symlink_to(ROOT / "models" / "zoo" / "formation-energy")
    assert [item.name for item in assay.load("tc").properties] == ["formation_energy"]
    assert [item.name for item in assay.load("tc-fast").properties] == ["tc"]


SMALL: dict[str, Any] = {"models": ["tc-fast"], "sources.0.n": 30}


def test_a_campaign_runs_from_a_name_a_path_and_a_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = assay.screen("quickstart", output="a", rank={"top": 5}, **SMALL)
    assert named.folder == tmp_path / "a"
    (tmp_path / "c.yaml").write_text((ROOT / "configs" / "quickstart.yaml").read_text())
    read = assay.screen("c.yaml", output=tmp_path / "b", **SMALL)
    keys = {"name": "mine", "sources": [{"kind": "prototypes", "n": 30, "seed": 0}], "models": ["tc-fast"],
            "rank": {"property": "tc", "by": "probability", "threshold": 10.0}, "output": "c"}  # fmt: skip
    given = assay.screen(keys)
    ranked = [one.candidates(["id", "tc_mean"]).to_pylist() for one in (named, read, given)]
    assert ranked[0] == ranked[1] == ranked[2]
    assert keys["output"] == "c"
    assert assay.open("a").summary == named.summary
    assert "top: 5" in (tmp_path / "a" / "config.resolved.yaml").read_text()
    prints = [assay.open(folder).ledger for folder in "ab"]
    assert len(prints[0]) == len(prints[1])


def test_a_campaign_that_cannot_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Failure, match="did you mean 'rank'") as caught:
        assay.screen("quickstart", ranks={"top": 5})
    assert caught.value.code is Exit.CONFIG
    with pytest.raises(Failure, match="did you mean the bundled 'quickstart'"):
        assay.screen("quickstar")
    with pytest.raises(Failure, match="no campaign folder"):
        assay.open(tmp_path)


def test_the_handlers_of_signals_are_put_back_and_threads_may_screen(tmp_path: Path) -> None:
    import signal
    from concurrent.futures import ThreadPoolExecutor

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(assay.screen, "quickstart", output=str(tmp_path / "t"), **SMALL).result().ranked
    assert assay.screen("quickstart", output=str(tmp_path / "t"), **SMALL).ranked
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_distribution_ships_types() -> None:
    assert (ROOT / "assay" / "py.typed").is_file()
    assert metadata.version("assay")
