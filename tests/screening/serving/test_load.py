"""The benchmark of the server, with few requests: no error, a reason for every bad upload, memory that stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.screening.serving.conftest import ROOT


def test_many_clients_and_bad_uploads_are_borne(data: Path, tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "serving" / "load.py"
    few = ["--uploads", "40", "--clients", "20", "--malformed", "160", "--output", str(tmp_path / "load.json")]
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths, "ASSAY_DATA": str(data)}
    child = subprocess.run([sys.executable, script, *few], env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    found = json.loads((tmp_path / "load.json").read_text())
    assert found["uploads"]["answered 200"] == found["uploads"]["sent"] == 40
    bad = found["malformed"]
    assert (bad["sent"], bad["not 4xx"], bad["without a reason"]) == (160, 0, 0)
    assert bad["MB after"] < 1.1 * bad["MB before"]
