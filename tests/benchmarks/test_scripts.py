"""Every script of the benchmarks has a short mode, and that of a GPU runs on a CPU and says where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(
    path
    for folder in (".", "serving", "devices")
    for path in (BENCHMARKS / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses ask for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_has_a_short_mode_and_a_line_in_the_readme(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = loaded(path, monkeypatch)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    said = " ".join(capsys.readouterr().out.split())
    assert "--short a short run: " in said
    assert f"`{path.relative_to(BENCHMARKS)}" in (BENCHMARKS / "README.md").read_text()


def test_a_short_run_has_smaller_defaults_and_leaves_the_kept_figures_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    featurizer = loaded(BENCHMARKS / "featurizer.py", monkeypatch)
    long, short = (featurizer._options(["--data", str(data), *more]) for more in ([], ["--short"]))
    assert long.output == BENCHMARKS / "results/featurize.json"
    assert short.output == ROOT / "runs/short/featurize.json"
    assert short.crystals < long.crystals
    asked = featurizer._options(["--crystals", "99", "--short", "--data", str(data)])
    assert (asked.crystals, asked.quotients) == (99, short.quotients)  # what is asked for wins, wherever it stands


def gpu(*words: str, hidden: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if hidden else {}
    script = [sys.executable, str(BENCHMARKS / "devices/gpu.py"), *words]
    return subprocess.run(script, env=environment, capture_output=True, text=True)


def test_without_a_card_nothing_is_measured(data: Path, tmp_path: Path) -> None:
    child = gpu("--data", str(data), "--output", str(tmp_path / "card.json"), hidden=True)
    assert child.returncode == 78, child.stderr[-2000:]
    assert "device cuda is not available" in child.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_script_for_a_card_runs_on_a_cpu(data: Path, tmp_path: Path) -> None:
    small = ["--crystals", "8", "--compared", "4"]
    child = gpu("--device", "cpu", "--data", str(data), "--output", str(tmp_path / "card.json"), *small)
    assert child.returncode == 0, child.stderr[-2000:]
    found: dict[str, Any] = json.loads((tmp_path / "card.json").read_text())
    assert found["card"] == {"name": "cpu"}
    assert {"graphs", "tc-graphs", "fresh networks"} <= found["equality"].keys()
    assert all(one["holds"] for one in found["equality"].values())
    for network in ("cgcnn", "alignn"):
        rates, apart = found[network]["rates"], found[network]["differences"]
        assert all(rate["crystals_per_s"] > 0 for rate in rates.values())
        assert apart["assay, quotients of the host"]["largest"] < 1e-4
        assert 0 < apart["assay, bfloat16"]["largest"] < 0.5
        assert found["training"][network]["assay, full graphs"]["crystals_per_s"] > 0
    assert 0 < found["alignn"]["graphs_share"] < 1.5
