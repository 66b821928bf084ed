"""SIGTERM to a training or a search on Ray: 85, one line, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.screening.settings.exits import Exit, Stopped, explain

pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[3]
STOPPED = "assay: stopped; what was committed is kept, run again to go on"
MEMBER = {"network": "cgcnn", "sizes": {"hidden": 8, "layers": 1, "bins": 8}}
RECIPE: dict[str, Any] = {
    "name": "small",
    "tasks": [{"dataset": "3dsc-tc", "property": {"name": "tc", "unit": "K", "minimum": 0.0}}],
    "split": {"folds": 3},
    "limit": 300,
    "schedule": {"epochs": 5000, "batch_size": 64, "patience": 5000},
    "members": [MEMBER | {"seed": 0}, MEMBER | {"seed": 1}],
}
SEARCH = {"recipe": "recipe.yaml", "space": {"schedule.learning_rate": {"loguniform": [1e-4, 1e-2]}}, "trials": 2}


def wait_for(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def family(mark: str) -> list[int]:
    """Processes with this text in their environment."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        (["train", "recipe.yaml", "--on", "ray"], ""),  # while Ray starts
        (["train", "recipe.yaml", "--on", "ray"], "*/history.jsonl"),
        (["tune", "search.yaml"], "trials/*/*/history.jsonl"),
    ],
    ids=["start", "train", "tune"],
)
def test_sigterm_ends_a_training_on_ray_with_85(data: Path, tmp_path: Path, words: list[str], begun: str) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    (tmp_path / "search.yaml").write_text(json.dumps(SEARCH))
    mark = f"ASSAY_TEST_STOP={tmp_path}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ASSAY_DATA": str(data), "ASSAY_TEST_STOP": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "assay", *words, "-o", "out", "--workers", "2"]
    child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    met = (lambda: any(tmp_path.glob(f"out/{begun}"))) if begun else (lambda: len(family(mark)) > 1)
    wait_for(lambda: child.poll() is not None or met())
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=240)
    assert child.returncode == Exit.STOPPED, errors
    assert errors.strip().splitlines()[-1] == STOPPED
    assert "Traceback" not in errors
    wait_for(lambda: not family(mark))


def test_a_stop_that_compiled_code_wraps_is_a_stop() -> None:
    error = SystemError("<cyfunction wait> returned a result with an exception set")
    assert explain(error) is None
    error.__cause__ = Stopped()
    failure = explain(error)
    assert failure is not None
    assert failure.code == Exit.STOPPED
