"""The tutorial notebook, executed: `python -m tests.notebook` writes its outputs anew.

Enters: the notebook with whatever outputs it has. Leaves: the same cells with the outputs of today.
It runs in a folder of its own, from which it sees the example files.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "how-to" / "tutorial.ipynb"


def read() -> Any:
    """The notebook with its stored outputs."""
    return nbformat.read(NOTEBOOK, as_version=4)


def executed(folder: Path, timeout_s: int = 600) -> Any:
    """The notebook as it comes out in an empty folder; an error of a cell is raised."""
    (folder / "tests").symlink_to(ROOT / "tests")
    os.environ["PYTHONPATH"] = str(ROOT)
    notebook = read()
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout_s, resources=resources, record_timing=False).execute()
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        nbformat.write(executed(Path(place)), NOTEBOOK)
